"""Language models without pictures: configs, checkpoint directories and GGUF files to ONNX, and on to the emulator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from focusc.driver import CompileOptions, InputError, compile_model, concentration_sites, load_model, ops
from focusc.driver.comparison import reference
from focusc.driver.execution import Runner
from focusc.driver.snapshots import write_snapshot
from focusc.export.checkpoint import import_transformers, open_checkpoint
from focusc.export.errors import ExportError
from focusc.export.instances import write_config
from focusc.export.samples import Request
from focusc.export.vlm import export_vlm
from focusc.frontend import import_onnx

SIZES: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 128, "max_position_embeddings": 256, "bos_token_id": 0, "eos_token_id": 1,
}
LETTERS = "Ġabcdefghijklmnopqrstuvwxyz"
MERGES = ["t h", "th e", "Ġ the", "c a", "ca t", "Ġ cat", "s a", "sa t", "Ġ sat", "m a", "ma t", "Ġ mat", "o n"]
PIECES = ["<s>", "</s>", *LETTERS, *(merge.replace(" ", "") for merge in MERGES)]
"""A byte-level vocabulary, as far as the tests need it."""


def config(folder: Path, kind: str, **more: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({"model_type": kind, **SIZES, **more}))
    return path


@pytest.mark.parametrize(("kind", "more"), [
    ("llama", {"tie_word_embeddings": True}),                    # one table, read by rows and multiplied with
    ("qwen3", {"head_dim": 32, "attention_bias": True}),         # norms of q and k, heads wider than the width
])
def test_a_config_to_the_emulator(kind: str, more: dict[str, Any], tmp_path: Path) -> None:
    """Nothing says `concentrate`, and nothing is asked: a model without visual tokens is compiled dense."""
    out = tmp_path / "model.onnx"
    report = export_vlm(config(tmp_path, kind, **more), out, request=Request(length=24), random_weights=0)
    assert report.layout is None
    assert "no visual tokens (text only)" in str(report)
    assert report.max_rel is not None and 0 < report.max_rel < 1e-4
    inputs = dict(np.load(out.with_suffix(".npz")))
    assert inputs["input_ids"].shape == (1, 24)

    module = import_onnx(out)
    assert module.attrs["layout"] == {}
    write_snapshot(module, tmp_path / "model.fir")
    assert load_model(tmp_path / "model.fir").attrs["layout"] == {}
    found = ops(out)
    assert found.supported and found.concentrate == "none" and found.layout == {}
    assert concentration_sites(out) == []
    done = compile_model(out, CompileOptions())
    assert done.method == "none"
    expected = reference(out)(inputs)["logits"]
    logits = Runner(done.program, done.machine).run(inputs).outputs["logits"]
    assert logits.argmax() == expected.argmax()
    assert np.linalg.norm(logits - expected) < 1e-2 * np.linalg.norm(expected)
    other = Runner(done.program, done.machine).outputs({"input_ids": inputs["input_ids"][:, ::-1].copy()})["logits"]
    assert np.linalg.norm(other - logits) > 0.1 * np.linalg.norm(logits), "the tokens matter"

    with pytest.raises(InputError) as caught:
        compile_model(out, CompileOptions.load(concentrate="focus"))
    assert caught.value.code == "layout.missing"
    assert "without visual tokens" in caught.value.hint


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    import_transformers()
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(["<s>", "</s>", "<unk>", "ask", "the", "cat", "sat"])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")


def test_a_checkpoint_with_a_prompt(tokenizer: Any, tmp_path: Path) -> None:
    """The checkpoint's weights and tokenizer; its chat template is put around the prompt."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    config(folder, "llama")
    open_checkpoint(folder).random(3).save_pretrained(folder)
    tokenizer.chat_template = ("ask {{ messages[0]['content'] }} {% if add_generation_prompt %}ask{% endif %}")
    tokenizer.save_pretrained(folder)
    out = tmp_path / "model.onnx"
    report = export_vlm(folder, out, request=Request(prompt="the cat sat"))
    assert report.max_rel is not None and report.max_rel < 1e-4
    assert np.load(out.with_suffix(".npz"))["input_ids"].tolist() == [[3, 4, 5, 6, 3]]
    assert report.sample == "5 tokens, tokenizer"


def write_gguf(path: Path, model: Any) -> dict[str, Any]:
    """A llama model as GGUF: norms in f32, matrices in Q4_1, a byte-level tokenizer. Returns what the file then holds,
    as a state dict."""
    import torch
    from gguf import GGMLQuantizationType, GGUFWriter, TokenType, dequantize, quantize

    writer = GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(SIZES["max_position_embeddings"])
    writer.add_embedding_length(SIZES["hidden_size"])
    writer.add_block_count(SIZES["num_hidden_layers"])
    writer.add_feed_forward_length(SIZES["intermediate_size"])
    writer.add_head_count(SIZES["num_attention_heads"])
    writer.add_head_count_kv(SIZES["num_key_value_heads"])
    writer.add_rope_dimension_count(SIZES["hidden_size"] // SIZES["num_attention_heads"])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(SIZES["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([*PIECES, *(f"<{n}>" for n in range(SIZES["vocab_size"] - len(PIECES)))])
    writer.add_token_types([TokenType.CONTROL] * 2 + [TokenType.NORMAL] * (SIZES["vocab_size"] - 2))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    parts = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
             "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
             "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    names |= {f"model.layers.{layer}.{mine}": f"blk.{layer}.{theirs}"
              for layer in range(SIZES["num_hidden_layers"]) for mine, theirs in parts.items()}
    held = {}
    for name, value in model.state_dict().items():
        array = value.numpy()
        heads = {"q": SIZES["num_attention_heads"], "k": SIZES["num_key_value_heads"]}.get(name.split(".")[-2][0])
        paired = heads if "_proj" in name and "self_attn" in name else None
        if paired:       # GGUF has the two halves of a head's rotation beside each other
            array = array.reshape(paired, 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        if array.ndim == 1:
            writer.add_tensor(f"{names[name.removesuffix('.weight')]}.weight", array)
        else:
            packed = quantize(array, GGMLQuantizationType.Q4_1)
            writer.add_tensor(f"{names[name.removesuffix('.weight')]}.weight", packed,
                              raw_dtype=GGMLQuantizationType.Q4_1)
            array = dequantize(packed, GGMLQuantizationType.Q4_1)
        if paired:
            array = array.reshape(paired, -1, 2, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        held[name] = torch.from_numpy(np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return held


def test_a_gguf_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Quantised weights, config and tokenizer of one file; the graph computes what the file holds, in silence."""
    import torch

    model = open_checkpoint(config(tmp_path, "llama", rms_norm_eps=1e-5)).random(7).eval()
    held = write_gguf(tmp_path / "tiny.gguf", model)
    out = tmp_path / "model.onnx"
    capfd.readouterr()
    report = export_vlm(tmp_path / "tiny.gguf", out, request=Request(prompt="the cat sat on the mat"))
    assert not any(capfd.readouterr()), "no bars and warnings of the libraries"
    assert report.model == "LlamaForCausalLM" and report.max_rel is not None and report.max_rel < 1e-4
    ids = np.load(out.with_suffix(".npz"))["input_ids"]
    assert [PIECES[n] for n in ids[0]] == ["the", "Ġcat", "Ġsat", "Ġ", "on", "Ġthe", "Ġmat"]
    model.load_state_dict(held)
    with torch.no_grad():
        expected = model(torch.from_numpy(ids)).logits[:, -1].numpy()
    logits = reference(out)({"input_ids": ids})["logits"]
    np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())


def refused(code: str, refusals: list[ExportError], source: Path, request: Request, **options: Any) -> None:
    """The export must fail with `code` and write nothing; its message goes to the test's golden text."""
    with pytest.raises(ExportError) as caught:
        export_vlm(source, source.parent / "model.onnx", request=request, **options)
    assert caught.value.code == code, str(caught.value)
    assert not (source.parent / "model.onnx").exists()
    refusals.append(caught.value)


def test_what_a_language_model_does_not_take(tmp_path: Path, refusals: list[ExportError]) -> None:
    source, ids = config(tmp_path, "llama"), tmp_path / "ids.npy"
    refused("export.options", refusals, source, Request(image=tmp_path / "a.png"), random_weights=0)
    refused("export.options", refusals, source, Request(prompt="a", length=3), random_weights=0)
    refused("export.processor", refusals, source, Request(prompt="a"), random_weights=0)
    for wrong in (np.array([3, 128]), np.zeros((2, 3), np.int64), np.zeros(3, np.float32)):
        np.save(ids, wrong)
        refused("export.arrays", refusals, source, Request(tokens=ids), random_weights=0)
    with pytest.raises(ExportError, match="--length is 0, expected at least 1"):
        Request(length=0)


def test_what_a_model_that_sees_does_not_take(tmp_path: Path, refusals: list[ExportError]) -> None:
    source = write_config("smolvlm", tmp_path / "config.json")
    np.save(tmp_path / "ids.npy", np.array([3]))
    for request in (Request(length=3), Request(prompt="What?"), Request(tokens=tmp_path / "ids.npy")):
        refused("export.options", refusals, source, request, random_weights=0)


def test_what_neither_sees_nor_continues_text(tmp_path: Path, refusals: list[ExportError]) -> None:
    path = tmp_path / "config.json"
    for kind in ("bert", "t5", "vit"):
        path.write_text(json.dumps({"model_type": kind}))
        refused("export.architecture", refusals, path, Request(), random_weights=0)


def test_damaged_gguf(tmp_path: Path, refusals: list[ExportError]) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(b"PK\x03\x04")
    refused("export.gguf", refusals, path, Request())
    path.write_bytes(b"GGUF" + b"\xff" * 40)
    refused("export.gguf", refusals, path, Request())
    write_gguf(path, open_checkpoint(config(tmp_path, "llama")).random(7))
    data = path.read_bytes()
    # cut in the magic number, the counts, a key and the tensors; and a key that is not text
    for damaged in (*(data[:size] for size in (4, 10, 30, len(data) * 3 // 4)), data[:60] + b"\xff" * 8 + data[68:]):
        path.write_bytes(damaged)
        refused("export.gguf", refusals, path, Request())
