"""Responses drawn by vLLM, which runs the language model alone (:mod:`plugins.vllm_backend.decoder`).

It gets a plain decoder once, embeddings with every prompt, and the decoder's adapters when they have changed.

Every response is a request with a seed of its own, made of its name, so what is drawn does not depend on
which others are asked for. One request a group would save nothing: vLLM takes it apart too, and requests find
the key-value blocks of the same prompt, or image pair, in the prefix cache. Logits are the same to rounding
only, so a draw that is a near tie may differ between machines.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save, save_file
from torch import Tensor

from harness.errors import BadInput
from plugins.vllm_backend.decoder import ON_EMBEDDINGS, export_decoder
from plugins.vllm_backend.starting import import_vllm
from trainers.policy import Policy, Sight
from trainers.prompts import TrainingPrompt
from trainers.rollout import Completion
from trainers.settings import RolloutSettings

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM's ``max_lora_rank`` may be


class VllmSampler:
    """Samples with vLLM, within this process and beside the policy.

    With top-p or top-k the recorded log-probabilities are renormalised over the tokens that are left: vLLM
    gives no others once some tokens are suppressed.

    Args:
        policy: the model, before its first forward. A 4-bit base is handed over dequantised: those weights
            are what it computes with, and the adapters stay apart from them.
        settings: temperature, top-p, top-k and the token limit.
        cache_bytes: memory for keys and values; by default 4 GiB of a GPU, or 1 GiB of the CPU's.

    Raises:
        BadInput: vLLM cannot be imported, or takes no such temperature.
    """

    def __init__(self, policy: Policy, settings: RolloutSettings, *, cache_bytes: int | None = None) -> None:
        vllm = import_vllm("rollout.sampler is vllm", "--set rollout.sampler=torch")
        if settings.temperature > 2:
            raise BadInput(f"rollout.temperature is {settings.temperature}; vLLM takes at most 2")
        self.policy, self.settings = policy, settings
        self._temporary = TemporaryDirectory(prefix="emit-rollout-")
        self.folder = Path(self._temporary.name)
        decoder = export_decoder(policy.model, self.folder / "decoder")
        memory = cache_bytes or (1 << 30 if policy.device.type == "cpu" else 4 << 30)
        self.engine = _engine(vllm, policy, decoder, memory)
        shutil.rmtree(decoder)  # it is in memory now
        self.version, self._digest = 0, ""
        self._adapter: Any = None
        self.updated()

    def updated(self) -> None:
        """Hand the decoder's adapters over, if they have changed.

        Under a new name each time: vLLM finds prefixes again by the name of the adapter they are made with.
        """
        tensors = decoder_adapters(self.policy)
        digest = sha256(save(tensors)).hexdigest()
        if not tensors or digest == self._digest:
            return
        from vllm.lora.request import LoRARequest

        engine, old = self.engine.llm_engine, self._adapter
        self.version, self._digest = self.version + 1, digest
        folder = write_adapters(self.policy, tensors, self.folder / f"v{self.version}")
        self._adapter = LoRARequest(folder.name, self.version, str(folder))
        if old is not None:
            engine.remove_lora(old.lora_int_id)
            shutil.rmtree(old.lora_path)
        engine.add_lora(self._adapter)

    @torch.no_grad()
    def sample(
        self, prompt: TrainingPrompt, sight: Sight, rows: Sequence[int], seeds: Sequence[Sequence[bytes]]
    ) -> list[list[Completion]]:
        """For each of the questions ``rows``, one response a seed, all in one batch.

        Raises:
            BadInput: a prompt and its longest response do not fit into the model or the cache.
        """
        embeds = [self._embeds(prompt, sight, row) for row in rows]
        prompts = [{"prompt_embeds": one} for one, part in zip(embeds, seeds, strict=True) for _ in part]
        params = [self._params(seed) for part in seeds for seed in part]
        outputs = self.engine.generate(prompts, params, lora_request=self._adapter, use_tqdm=False)
        drawn = []
        for asked, output in zip(prompts, outputs, strict=True):
            ids, given = tuple(output.outputs[0].token_ids), output.outputs[0].logprobs
            logps = [among[token].logprob for token, among in zip(ids, given, strict=True)]
            drawn.append(Completion(ids, torch.tensor(logps), ids[-1] in self.policy.ends))
            self.policy.counts["prefilled_tokens"] += len(asked["prompt_embeds"]) - output.num_cached_tokens
            self.policy.counts["decoded_tokens"] += len(ids)
        found = iter(drawn)
        return [[next(found) for _ in part] for part in seeds]

    def _embeds(self, prompt: TrainingPrompt, sight: Sight, row: int) -> Tensor:
        """One question's whole prompt (P, d), on the CPU; the engine hashes it there."""
        config, limit = self.engine.llm_engine.model_config, self.settings.max_new_tokens
        embeds = self.policy.embed(prompt, sight, row)[0].to("cpu", config.dtype)
        if len(embeds) + limit > config.max_model_len:
            raise BadInput(
                f"the prompt of {prompt.id} has {len(embeds)} tokens; with rollout.max_new_tokens ({limit}) "
                f"that is more than vLLM has room for ({config.max_model_len}); lower --set model.tiles"
            )
        return embeds

    def _params(self, seed: bytes) -> Any:
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        return SamplingParams(
            temperature=self.settings.temperature,
            top_p=self.settings.top_p,
            top_k=self.settings.top_k,
            max_tokens=self.settings.max_new_tokens,
            seed=int.from_bytes(seed[:8], "big") >> 1,  # signed, 64 bits
            stop_token_ids=sorted(self.policy.ends),
            logit_bias=dict.fromkeys(self.policy.suppressed.tolist(), -float("inf")),
            logprobs=0,  # of the drawn token, and of no other
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )


def _engine(vllm: Any, policy: Policy, folder: Path, cache_bytes: int) -> Any:
    """The engine on an exported decoder; of several processes, each has one on its own device."""
    options: dict[str, Any] = {}
    on_cpu = policy.device.type == "cpu"
    several = torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1
    if several:
        options["distributed_executor_backend"] = "external_launcher"
    if policy.adapters is not None:
        rank = int(policy.adapters.peft_config["default"].r)
        options |= {"enable_lora": True, "max_lora_rank": next((r for r in _RANKS if r >= rank), rank)}
    engine = vllm.LLM(
        str(folder),
        dtype="float32" if policy.model.dtype.itemsize > 2 else policy.model.dtype,
        hf_overrides={"head_dtype": "float32"},  # as the policy's own head
        generation_config="vllm",  # nothing but the settings decides how tokens are drawn
        enable_prefix_caching=True,
        logprobs_mode="processed_logprobs",  # after suppression and temperature
        kv_cache_memory_bytes=cache_bytes,
        gpu_memory_utilization=0.01,  # only what must be free at the start: the line above says what is taken
        max_model_len=-1,  # as long as the cache allows
        enforce_eager=on_cpu,
        enable_chunked_prefill=not on_cpu,  # seeds and prompts in pieces do not go together there
        use_tqdm_on_load=False,
        **ON_EMBEDDINGS,
        **options,
    )
    if several:  # its clean-up would destroy the training's own process group
        engine.llm_engine.engine_core._finalizer.detach()
        gc.unfreeze()
    return engine


def decoder_adapters(policy: Policy) -> dict[str, Tensor]:
    """The language model's adapters, under the names that peft gives those of the exported decoder."""
    return {
        "base_model.model.model." + name.replace(".default.", "."): parameter.detach().cpu().contiguous()
        for name, parameter in policy.model.model.language_model.named_parameters()
        if "lora_" in name
    }


def write_adapters(policy: Policy, tensors: Mapping[str, Tensor], folder: Path) -> Path:
    """Write adapters as a folder that peft and vLLM read; its folder."""
    from peft import LoraConfig

    own = policy.adapters.peft_config["default"]
    layers = sorted({name.split(".")[-3] for name in tensors})
    config = LoraConfig(task_type="CAUSAL_LM", r=own.r, lora_alpha=own.lora_alpha, target_modules=layers)
    folder.mkdir(parents=True)
    config.save_pretrained(str(folder))
    save_file(dict(tensors), folder / "adapter_model.safetensors")
    return folder
