"""Real clips: decoded, through the demo model's preprocessing, asked about; and the links that SIC finds in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.clips import Share, clip_file, concentrated, linked
from benchmarks.synthetic import Decoder
from focusc.driver import CompileOptions, InputError, compile_model, demonstration
from focusc.driver.clips import clip_samples
from focusc.driver.comparison import Column, table
from focusc.driver.execution import Runner
from focusc.export.evaluation import Evaluation
from focusc.export.media import read_video
from focusc.report.tables import answers_table, rendered

DEMO = Evaluation("demo")


def write_clip(path: Path, frames: int) -> Path:
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            picture = np.full((48, 64, 3), 20 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(("name", "shape"), [
    ("bikes", (8, 272, 640, 3)), ("carphone_pristine", (8, 144, 176, 3)),
])
def test_real_clips_are_decoded(name: str, shape: tuple[int, ...]) -> None:
    """From end to end, and adjacent frames, which are more alike."""
    whole = read_video(clip_file(name), 8).astype(np.float32)
    near = read_video(clip_file(name), 8, every=1).astype(np.float32)
    assert whole.shape == near.shape == shape
    np.testing.assert_array_equal(whole[0], near[0])
    change = [float(np.abs(np.diff(frames, axis=0)).mean()) for frames in (near, whole)]
    assert 0 < 2 * change[0] < change[1]


def test_preprocessing_is_the_middle_square_shrunk() -> None:
    frames = np.zeros((8, 96, 192, 3), np.uint8)
    frames[:, :, 48:96] = 255                                    # the left half of the middle square
    frames[:, :, :48] = 77                                       # is cut off
    frames[3, :2, 96:98, 1] = (0, 100)                           # two pixels of four are averaged
    questions = list(DEMO.ask_clip(frames))
    pixels = questions[0].inputs["pixel_values"]
    assert pixels.shape == (8, 3, 48, 48) and pixels.dtype == np.float32
    np.testing.assert_allclose(pixels[:, :, :, :24], (1 - 0.45) / 0.25, rtol=1e-6)
    np.testing.assert_allclose(pixels[3, 1, 0, 24], (50 / 255 - 0.45) / 0.25, atol=0.01)
    np.testing.assert_allclose(pixels[4, :, :, 24:], -0.45 / 0.25, rtol=1e-6)
    assert len({question.text for question in questions}) == len(questions) == 7
    assert all(question.answer is None for question in questions)
    assert len({question.inputs["input_ids"].tobytes() for question in questions}) == 7


def test_a_file_that_is_no_clip(tmp_path: Path) -> None:
    path = tmp_path / "notes.mp4"
    path.write_text("no clip at all")
    for video, code in ((path, "export.video"), (tmp_path / "nothing.mp4", "file.missing")):
        with pytest.raises(InputError) as caught:
            demonstration.demo(tmp_path / "out", video=video, say=lambda _: None)
        assert caught.value.code == code
        assert not (tmp_path / "out").exists()


def test_a_clip_that_is_too_short(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the clip has 5 frames, 8 were asked for") as caught:
        clip_samples(DEMO, write_clip(tmp_path / "short.mp4", 5))
    assert caught.value.code == "export.frames"
    assert caught.value.hint == "the demo model takes 8 frames"


def test_a_clip_has_questions_and_no_right_answers() -> None:
    """Everybody's answer is shown and none is called wrong; agreement with the dense program is what can be said."""
    samples = clip_samples(DEMO, clip_file("carphone_pristine"))
    assert len(samples) == 7 and all(sample.answer is None for sample in samples)
    rows = [(sample.text, None, "star", "left") for sample in samples[:2]]
    text = rendered(answers_table(rows, ["onnxruntime", "emulated focus"]))
    assert text.splitlines()[0].split() == ["question", "onnxruntime", "emulated", "focus"]
    assert "(wrong)" not in text and text.count("star") == text.count("left") == 2
    assert "left (wrong)" in rendered(answers_table([("what ?", "star", "star", "left")], ["a", "b"]))
    costs = {"cycles": 2, "time_s": 1.0, "energy_mj": {"total": 1.0}, "dram_bytes": {"read": 1, "write": 1},
             "sparsity": 0.5, "macs": 1, "host": {}}
    columns = [Column("onnxruntime", [1, 2]), Column("none", [1, 2], [costs] * 2), Column("focus", [1, 3], [costs] * 2)]
    found = table(columns, samples[:2], "demo.onnx", "focus", "pipelined")["rows"]
    assert [row["agreement"] for row in found] == [1, 1, 0.5]
    assert not any("accuracy" in row for row in found)


@pytest.mark.slow
def test_the_demo_answers_about_a_clip(tmp_path: Path) -> None:
    """From the clip's bytes to answers, tables and a picture: no answer is known, so agreement is what is told."""
    told: list[str] = []
    clip = write_clip(tmp_path / "grey.mp4", 8)
    done = demonstration.demo(tmp_path / "out", video=clip, samples=1, say=told.append)
    text = "\n".join(told)
    assert f"answer 1 questions about {clip} with onnxruntime and on the emulator, 4 programs" in text
    assert f"look closer at one question: {clip_samples(DEMO, clip)[0].text}\n" in text and "(wrong)" not in text
    rows = {row["method"]: row for row in done["rows"]}
    assert list(rows) == ["onnxruntime", "dense", "sec", "sic", "focus"]
    assert rows["dense"]["agreement"] == 1 and not any("accuracy" in row for row in rows.values())
    assert rows["focus"]["sparsity"] > rows["dense"]["sparsity"] == 0
    out = tmp_path / "out"
    assert set(done["files"]) <= {path.name for path in out.iterdir()}
    assert (out / "patches.png").read_bytes().startswith(b"\x89PNG")


def test_links_are_counted_by_site_and_by_frame(tmp_path: Path) -> None:
    """Two equal frames: at the first site the second frame links throughout, and the emulator counts the same."""
    shape = Decoder(width=64, layers=1, frames=2, rows=4, columns=4)
    model = shape.write(tmp_path / "model.onnx")
    rng = np.random.default_rng(0)
    frame = rng.standard_normal((1, 16, 64))
    text = rng.standard_normal((1, shape.prefix + shape.query, 64))
    parts = [text[:, :shape.prefix], frame, frame, text[:, shape.prefix:]]
    inputs = {"embeddings": np.concatenate(parts, axis=1).astype(np.float32)}
    found = linked(concentrated(model, 0.9, "sic"), inputs)
    assert list(found) == [(0, site) for site in ("qkv_in", "query", "o_in", "mlp_in", "down_in")]
    assert found[0, "qkv_in"] == Share(vectors=64, linked=32, earlier=32)
    options = CompileOptions.load(concentrate="sic")
    program = compile_model(model, options)
    stats = Runner(program.program, program.machine).run(inputs).stats
    for site in stats["sites"]:
        mine = found[site["layer"], site["site"]]
        assert (site["vectors"], site["vectors"] - site["unique"]) == (mine.vectors, mine.linked), site["site"]
