"""Responses drawn by vLLM, which runs the language model alone.

Images, hints and tower adapters are in the prompt's embeddings, so vLLM needs neither processor nor tower: it
gets a plain decoder once, embeddings with every prompt, and the decoder's adapters whenever they have changed.

Every response is a request with a seed of its own, made of its name, so what is drawn does not depend on which
other responses are asked for. That costs nothing against one request for all of them, which vLLM would take
apart too: requests on one prompt find its key-value blocks in the prefix cache, and so do questions on one
image pair. Logits are the same to rounding only, so a draw that is a near tie may differ between machines.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from copy import deepcopy
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from harness.errors import BadInput
from trainers.policy import Policy, Sight
from trainers.prompts import TrainingPrompt
from trainers.rollout import Completion
from trainers.settings import RolloutSettings

_PREFIX = "base_model.model.model."  # peft's names for layers of a causal language model
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # vLLM's ``max_lora_rank``
_DTYPES = {torch.bfloat16: "bfloat16", torch.float16: "float16"}
#: For an engine within this process, on the device that the policy is on; what the user set stands.
_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
}


class VllmSampler:
    """Samples with vLLM, within this process and beside the policy; one engine a rank.

    With top-p or top-k the recorded log-probabilities are those of the tokens that are left: vLLM gives no
    others once some tokens are suppressed.

    Args:
        policy: the model. A 4-bit base is handed over dequantised, which is what it computes with.
        settings: temperature, top-p, top-k and the token limit.
        folder: where decoder and adapters are written; by default a temporary folder.
        cache_bytes: memory for keys and values; the longest prompt must fit in, and better a few.

    Raises:
        BadInput: vLLM cannot be imported, or the adapters' rank is more than it takes.
    """

    def __init__(
        self,
        policy: Policy,
        settings: RolloutSettings,
        *,
        folder: Path | None = None,
        cache_bytes: int = 4 << 30,
    ) -> None:
        self.policy, self.settings = policy, settings
        vllm = _import_vllm()
        self._temporary = TemporaryDirectory(prefix="emit-rollout-") if folder is None else None
        self.folder = Path(self._temporary.name) if self._temporary is not None else Path(folder or "")
        export_decoder(policy, self.folder / "decoder")
        self.engine = _engine(vllm, policy, self.folder / "decoder", cache_bytes)
        self.version = 0
        self._digest, self._adapter = "", None
        self.updated()

    def updated(self) -> None:
        """Hand the decoder's adapters over, if they have changed.

        Each time under a new name: vLLM keeps prefixes by the adapter's name, and would go on from those of
        the old weights.
        """
        tensors = adapter_tensors(self.policy)
        digest = _digest(tensors)
        if not tensors or digest == self._digest:
            return
        from vllm.lora.request import LoRARequest

        name = f"v{self.version + 1}"
        write_adapter(self.policy, tensors, self.folder / name)
        adapter = LoRARequest(name, self.version + 1, str(self.folder / name))
        if self._adapter is not None:
            self.engine.llm_engine.remove_lora(self.version)
            shutil.rmtree(self.folder / f"v{self.version}")
        self.engine.llm_engine.add_lora(adapter)
        self.version, self._digest, self._adapter = self.version + 1, digest, adapter

    @torch.no_grad()
    def sample(
        self, prompt: TrainingPrompt, sight: Sight, rows: Sequence[int], seeds: Sequence[Sequence[bytes]]
    ) -> list[list[Completion]]:
        """For each of the questions ``rows``, one response a seed; all in one batch.

        Raises:
            BadInput: a prompt with its longest response is longer than the engine's memory or the model allow.
        """
        prompts, params = [], []
        for row, part in zip(rows, seeds, strict=True):
            embeds = self._embeds(prompt, sight, row)
            prompts += [{"prompt_embeds": embeds}] * len(part)
            params += [self._params(seed) for seed in part]
        outputs = self.engine.generate(prompts, params, use_tqdm=False, lora_request=self._adapter)
        drawn = [self._completion(output.outputs[0]) for output in outputs]
        counts = self.policy.counts
        counts["prefilled_tokens"] += sum(len(one["prompt_embeds"]) for one in prompts)
        counts["prefilled_tokens"] -= sum(output.num_cached_tokens or 0 for output in outputs)
        counts["decoded_tokens"] += sum(len(one.ids) for one in drawn)
        found = iter(drawn)
        return [[next(found) for _ in part] for part in seeds]

    def _embeds(self, prompt: TrainingPrompt, sight: Sight, row: int) -> Tensor:
        """One question's whole prompt, (P, d), as the engine takes it."""
        config = self.engine.llm_engine.model_config
        embeds = self.policy.embed(prompt, sight, row)[0].to("cpu", config.dtype)
        if len(embeds) + self.settings.max_new_tokens > config.max_model_len:
            raise BadInput(
                f"prompt {prompt.id} has {len(embeds)} tokens; with rollout.max_new_tokens "
                f"({self.settings.max_new_tokens}) that is more than the {config.max_model_len} that vLLM has "
                "room for; lower --set model.tiles or rollout.max_new_tokens"
            )
        return embeds

    def _params(self, seed: bytes) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            temperature=self.settings.temperature,
            top_p=self.settings.top_p,
            top_k=self.settings.top_k,
            max_tokens=self.settings.max_new_tokens,
            seed=int.from_bytes(seed[:8], "big") >> 1,  # a positive 64-bit integer
            stop_token_ids=sorted(self.policy.ends),
            logit_bias=dict.fromkeys(self.policy.suppressed.tolist(), -float("inf")),
            logprobs=0,  # of the drawn token only
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def _completion(self, output: Any) -> Completion:
        ids = tuple(output.token_ids)
        logps = [given[token].logprob for token, given in zip(ids, output.logprobs, strict=True)]
        return Completion(ids, torch.tensor(logps), ids[-1] in self.policy.ends)


def _import_vllm() -> Any:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import vllm
    except (ImportError, OSError, RuntimeError) as error:  # its torch extensions fail with the latter two
        raise BadInput(
            f"rollout.sampler is vllm, but vllm cannot be imported ({str(error).splitlines()[0]}); install it "
            "with `pip install 'emit-bench[vllm]'` in an environment of its own, or pass "
            "--set rollout.sampler=torch"
        ) from error
    return vllm


def _engine(vllm: Any, policy: Policy, folder: Path, cache_bytes: int) -> Any:
    """The engine on an exported decoder; under ``torchrun`` every rank has one on its own device."""
    options: dict[str, Any] = {}
    if torch.distributed.is_initialized():
        options["distributed_executor_backend"] = "external_launcher"
    if policy.adapters is not None:
        rank = int(policy.adapters.peft_config["default"].r)
        if rank > _RANKS[-1]:
            raise BadInput(f"model.lora_rank is {rank}; vLLM takes at most {_RANKS[-1]}")
        options |= {
            "enable_lora": True,
            "max_loras": 1,
            "max_lora_rank": next(r for r in _RANKS if r >= rank),
        }
    return vllm.LLM(
        str(folder),
        dtype=_DTYPES.get(policy.model.dtype, "float32"),
        hf_overrides={"head_dtype": "float32"},  # as the policy's own head
        skip_tokenizer_init=True,  # embeddings go in, ids come out
        generation_config="vllm",  # sampling follows the settings alone
        enable_prompt_embeds=True,
        enable_prefix_caching=True,
        logprobs_mode="processed_logprobs",  # after suppression and temperature
        kv_cache_memory_bytes=cache_bytes,
        gpu_memory_utilization=0.01,  # what must be free at the start; the line above says how much is taken
        max_model_len=-1,  # as long as the memory above allows
        enforce_eager=policy.device.type == "cpu",
        disable_log_stats=True,
        **options,
    )


def export_decoder(policy: Policy, folder: Path) -> None:
    """Write the policy's language model and head, without adapters, as a plain checkpoint; a file a layer."""
    language, head = policy.model.model.language_model, policy.model.lm_head.weight
    tied = head.data_ptr() == language.embed_tokens.weight.data_ptr()
    folder.mkdir(parents=True, exist_ok=True)
    for part, named in groupby(_base_weights(language), lambda pair: ".".join(pair[0].split(".")[:2])):
        save_file({f"model.{name}": weight for name, weight in named}, folder / f"{part}.safetensors")
    if not tied:
        save_file({"lm_head.weight": _plain(head)}, folder / "lm_head.safetensors")
    config = deepcopy(language.config)
    config.architectures = [type(language).__name__.removesuffix("Model") + "ForCausalLM"]
    config.tie_word_embeddings = tied
    config.save_pretrained(folder)


def _base_weights(language: Any) -> Iterator[tuple[str, Tensor]]:
    """The decoder's parameters beneath its adapters, one by one, under its own names."""
    for name, parameter in language.named_parameters():
        if "lora_" not in name:
            yield name.replace(".base_layer.", "."), _plain(parameter)


def _plain(parameter: Any) -> Tensor:
    """On the CPU, without 4-bit storage."""
    state = getattr(parameter, "quant_state", None)
    if state is None:
        return parameter.detach().cpu().contiguous()  # type: ignore[no-any-return]
    if getattr(state, "packing_format_for_cpu", False):
        raise ValueError(
            "bitsandbytes has repacked the 4-bit weights; make the sampler before the first forward"
        )
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(parameter.detach(), state).cpu().contiguous()  # type: ignore[no-any-return]


def adapter_tensors(policy: Policy) -> dict[str, Tensor]:
    """The language model's adapters under the names that peft gives those of the exported decoder."""
    return {
        _PREFIX + name.replace(".default.", "."): parameter.detach().cpu().contiguous()
        for name, parameter in policy.model.model.language_model.named_parameters()
        if "lora_" in name
    }


def write_adapter(policy: Policy, tensors: dict[str, Tensor], folder: Path) -> None:
    """Write adapters as a folder that peft and vLLM read."""
    from peft import LoraConfig

    source = policy.adapters.peft_config["default"]
    layers = sorted({name.split(".")[-3] for name in tensors})
    folder.mkdir(parents=True)
    LoraConfig(
        r=source.r, lora_alpha=source.lora_alpha, target_modules=layers, task_type="CAUSAL_LM"
    ).save_pretrained(folder)
    save_file(tensors, folder / "adapter_model.safetensors")


def _digest(tensors: dict[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(tensors[name].flatten().view(torch.uint8).numpy())
    return found.hexdigest()
