"""A packed row computes what separate rows would."""

from __future__ import annotations

import shutil

import pytest
import torch

from tests import tiny
from trainers.packing import Branch, PackedBatch, Suffix, attention_mask, completion_states, pack, visible


def test_layout_by_hand() -> None:
    batch = pack(
        [((5, 6), (Suffix((7,), (8,)), Suffix((9, 10), (11,)))), ((5,), (Suffix((7,), (8,)),))], pad=0
    )
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9, 10, 11], [5, 7, 8, 0, 0, 0, 0]]
    assert batch.position_ids.tolist()[0] == [0, 1, 2, 3, 2, 3, 4]
    assert batch.rows.tolist() == [0, 0, 1]
    assert batch.columns.tolist() == [2, 5, 1]
    assert batch.targets.tolist() == [8, 11, 8]
    assert batch.owners.tolist() == [0, 1, 2]


def test_a_suffix_sees_the_prefix_and_itself_only() -> None:
    seen = mask(pack([((5, 6), (Suffix((7,), (8,)), Suffix((9,), (11,))))], pad=0))
    assert seen.int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [1, 1, 0, 0, 1, 1],
    ]


def test_nothing_predicts_a_response_to_nothing() -> None:
    with pytest.raises(ValueError, match="nothing that predicts it"):
        pack([((), (Suffix((), (8,)),))], pad=0)


def test_a_tree_by_hand() -> None:
    """Two questions behind a prefix of two, with two responses and one; one question is empty."""
    batch = pack([((5, 6), (Branch((7,), ((8, 9), (10,))), Branch((), ((11,),))))], pad=0)
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9, 10, 11]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 3, 2]]
    assert batch.columns.tolist() == [2, 3, 2, 1]
    assert batch.targets.tolist() == [8, 9, 10, 11]
    assert batch.owners.tolist() == [0, 0, 1, 2]
    assert mask(batch).int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0],
        [1, 1, 1, 0, 0, 1, 0],
        [1, 1, 0, 0, 0, 0, 1],
    ]


def test_the_mask_to_add_forbids_what_is_not_seen() -> None:
    batch = pack([((5, 6), (Branch((7,), ((8, 9), (10,))),))], pad=0)
    added = attention_mask(batch, "sdpa", torch.bfloat16)
    assert added.dtype == torch.bfloat16
    assert torch.equal(added == 0, visible(batch.segment, batch.parent))


def test_a_checkpoint_loaded_with_another_attention_computes_the_same() -> None:
    """Eager attention would add a boolean mask; rows bring the implementation that their mask is for."""
    model = tiny.internvl()[0].model.language_model.eval()
    batch = pack([((5, 6, 7), (Branch((8, 9), ((10, 11), (12,))),))], pad=0)
    with torch.no_grad():
        embeds = model.embed_tokens(batch.input_ids)
        wanted = completion_states(model, batch, embeds)
        model.config._attn_implementation = "eager"
        found = completion_states(model, batch, embeds)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def test_flex_attention_sees_the_same() -> None:
    """The block mask of a GPU, evaluated densely, is the dense mask."""
    from torch.nn.attention.flex_attention import create_mask

    batch = pack([((5, 6), (Branch((7,), ((8, 9), (10,))),)), ((5,), (Suffix((7,), (8,)),))], pad=0)
    block = attention_mask(batch, "flex_attention", torch.float32)
    rows, length = batch.segment.shape
    dense = create_mask(block.mask_mod, rows, 1, length, length, device="cpu")
    assert torch.equal(dense, visible(batch.segment, batch.parent))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(
    shutil.which("gcc") is None, reason="flex attention is compiled, which needs gcc on a CPU"
)
def test_flex_attention_computes_the_same() -> None:
    model = tiny.internvl()[0].model.language_model.eval()
    rows = [((5, 6, 7), (Branch((8, 9), ((10, 11), (12,))), Branch((13,), ((14, 15),))))]
    batch = pack(rows, pad=0)
    with torch.no_grad():
        embeds = model.embed_tokens(batch.input_ids)
        dense = completion_states(model, batch, embeds)
        flex = completion_states(model, batch, embeds, "flex_attention")
    assert model.config._attn_implementation == "sdpa"
    torch.testing.assert_close(flex, dense, rtol=0, atol=1e-5)


def mask(batch: PackedBatch) -> torch.Tensor:
    return visible(batch.segment, batch.parent)[0, 0]


def test_every_padded_position_sees_itself() -> None:
    """Softmax over nothing is NaN, and NaN times a zero gradient is NaN."""
    batch = pack([((5,), (Suffix((7,), (8,)),)), ((5, 6, 7), (Suffix((7,), (8,)),))], pad=0)
    assert bool(visible(batch.segment, batch.parent).diagonal(dim1=-2, dim2=-1).all())


def test_logits_equal_those_of_separate_rows() -> None:
    torch.manual_seed(0)
    model = tiny.internvl()[0].model.language_model.double().eval()
    prefix = tuple(torch.randint(10, 90, (9,)).tolist())
    suffixes = [
        Suffix(tuple(torch.randint(10, 90, (n,)).tolist()), tuple(torch.randint(10, 90, (m,)).tolist()))
        for n, m in ((4, 1), (2, 3), (7, 2))
    ]
    batch = pack([(prefix, suffixes), (prefix[:5], suffixes[:1])], pad=0)
    packed = model(
        input_ids=batch.input_ids,
        attention_mask=visible(batch.segment, batch.parent),
        position_ids=batch.position_ids,
        use_cache=False,
    ).last_hidden_state[batch.rows, batch.columns]
    alone = []
    for head, suffix in [*((prefix, s) for s in suffixes), (prefix[:5], suffixes[0])]:
        tokens = torch.tensor([[*head, *suffix.prompt, *suffix.completion]])
        hidden = model(input_ids=tokens, use_cache=False).last_hidden_state[0]
        first = len(head) + len(suffix.prompt) - 1
        alone.append(hidden[first : first + len(suffix.completion)])
    torch.testing.assert_close(torch.cat(alone), packed, rtol=0, atol=1e-12)
