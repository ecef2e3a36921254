"""A whole checkpoint directory, made here: weights, tokenizer and processor; pictures and clips from files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from focusc.export.checkpoint import import_transformers, open_checkpoint
from focusc.export.errors import ExportError
from focusc.export.instances import write_config
from focusc.export.vlm import Request, export_vlm

WORDS = ["what", "is", "shown", "here", "?", "user", ":", "assistant", "the", "cat"]
TEMPLATE = ("{% for m in messages %}user : {% for c in m['content'] %}{% if c['type'] == 'text' %} {{ c['text'] }} "
            "{% else %}<{{ c['type'] }}>{% endif %}{% endfor %}{% endfor %} assistant :")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LLaVA-OneVision with random weights, as a directory in the published form."""
    folder = tmp_path_factory.mktemp("checkpoint")
    write_config("llava_onevision", folder / "config.json")
    open_checkpoint(folder).random(5).save_pretrained(folder)
    import_transformers()
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        LlavaOnevisionImageProcessor,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
        PreTrainedTokenizerFast,
    )

    vocabulary = {word: index + 3 for index, word in enumerate(WORDS)} | {"<unk>": 2, "<image>": 120, "<video>": 121}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>",
                                      additional_special_tokens=["<image>", "<video>"])
    size = {"height": 28, "width": 28}
    pinpoints = [[28, 28], [28, 56], [56, 28], [56, 56]]
    processor = LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=pinpoints), tokenizer=wrapped,
        video_processor=LlavaOnevisionVideoProcessor(size=size), num_image_tokens=16,
        vision_feature_select_strategy="full", chat_template=TEMPLATE)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a picture, 60 x 40, and a clip of 6 frames, 64 x 48."""
    import av
    from PIL import Image

    folder = tmp_path_factory.mktemp("media")
    random = np.random.default_rng(1)
    Image.fromarray(random.integers(0, 255, (40, 60, 3), np.uint8)).save(folder / "picture.png")
    with av.open(str(folder / "clip.mp4"), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for frame in clip_frames(random):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return folder


def clip_frames(random: np.random.Generator) -> Iterator[np.ndarray]:
    background = random.integers(0, 255, (48, 64, 3), np.uint8)
    for step in range(6):
        frame = background.copy()
        frame[10:20, 5 * step: 5 * step + 10] = 255
        yield frame


def test_a_picture_with_a_question(checkpoint: Path, media: Path, tmp_path: Path) -> None:
    """The checkpoint's own weights, its processor's pixels, the chat template around the question."""
    report = export_vlm(checkpoint, tmp_path / "model.onnx",
                        request=Request(image=media / "picture.png", prompt="what is the cat ?"))
    assert report.max_rel is not None and report.max_rel < 1e-4
    assert "picture.png" in report.sample
    sample = np.load(tmp_path / "model.npz")
    ids = sample["input_ids"][0].tolist()
    assert ids[:2] == [8, 9], "user :"
    assert ids[-7:] == [3, 4, 11, 12, 7, 10, 9], "what is the cat ? assistant :"
    assert report.layout is not None
    assert report.layout.start == 2 and report.layout.query == 7
    assert sample["pixel_values"].shape[-3:] == (3, 28, 28)


def test_a_clip(checkpoint: Path, media: Path, tmp_path: Path) -> None:
    report = export_vlm(checkpoint, tmp_path / "model.onnx", request=Request(video=media / "clip.mp4", frames=3))
    assert report.max_rel is not None and report.max_rel < 1e-4
    assert report.layout is not None and report.layout.grid == (3, 2, 2)
    assert np.load(tmp_path / "model.npz")["pixel_values_videos"].shape == (1, 3, 3, 28, 28)


Refused = Callable[..., str]


@pytest.fixture
def refused(refusals: list[ExportError]) -> Refused:
    """The message of the ExportError of an export, with its code checked; nothing may be written."""

    def refuse(code: str, checkpoint: Path, folder: Path, **request: Any) -> str:
        with pytest.raises(ExportError) as caught:
            export_vlm(checkpoint, folder / "model.onnx", request=Request(**request))
        assert caught.value.code == code, str(caught.value)
        assert not list(folder.glob("*model.onnx*"))
        refusals.append(caught.value)
        return str(caught.value)

    return refuse


def test_media_that_cannot_be_used(checkpoint: Path, media: Path, tmp_path: Path, refused: Refused) -> None:
    assert "has 6 frames, 9 were asked for" in refused(
        "export.frames", checkpoint, tmp_path, video=media / "clip.mp4", frames=9)
    refused("export.video", checkpoint, tmp_path, video=media / "picture.gif")
    (tmp_path / "broken.mp4").write_bytes(b"not a clip at all")
    refused("export.video", checkpoint, tmp_path, video=tmp_path / "broken.mp4")
    refused("export.image", checkpoint, tmp_path, image=tmp_path / "broken.mp4")
    refused("export.image", checkpoint, tmp_path, image=tmp_path / "missing.png")
    (tmp_path / "cut.png").write_bytes((media / "picture.png").read_bytes()[:900])
    refused("export.image", checkpoint, tmp_path, image=tmp_path / "cut.png")
    (tmp_path / "cut.mp4").write_bytes((media / "clip.mp4").read_bytes()[:400])
    refused("export.video", checkpoint, tmp_path, video=tmp_path / "cut.mp4")


def test_a_prompt_without_placeholder_needs_a_chat_template(
    checkpoint: Path, media: Path, tmp_path: Path, refused: Refused
) -> None:
    """The placeholder in the prompt is taken as it is; without it and without a template there is nothing to go by."""
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in checkpoint.iterdir():
        if file.suffix != ".jinja":
            (bare / file.name).symlink_to(file)
    message = refused("export.prompt", bare, tmp_path, image=media / "picture.png", prompt="what is shown ?")
    assert "no image placeholder '<image>'" in message
    report = export_vlm(bare, tmp_path / "model.onnx",
                        request=Request(image=media / "picture.png", prompt="<image> what ?"))
    assert report.layout is not None
    assert (report.layout.start, report.layout.query) == (0, 2)


def test_a_processor_that_yields_no_visual_tokens(
    checkpoint: Path, media: Path, tmp_path: Path, refused: Refused
) -> None:
    """Its template leaves the picture out: there are pixels, and no placeholder for them in the text."""
    blind = tmp_path / "blind"
    blind.mkdir()
    for file in checkpoint.iterdir():
        if file.suffix != ".jinja":
            (blind / file.name).symlink_to(file)
    (blind / "chat_template.jinja").write_text("{% for m in messages %}user : what is shown ?{% endfor %}")
    message = refused("export.processor", blind, tmp_path, image=media / "picture.png", prompt="what ?")
    assert "Found total 0 <image> tokens and 1 images" in message


def test_a_processor_of_text_alone(
    checkpoint: Path, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    from transformers import AutoProcessor

    class Tokenizer:
        chat_template = None

        def __call__(self, text: list[str], **_: Any) -> dict[str, Any]:
            return {"input_ids": [[1, 2, 3]]}

    monkeypatch.setattr(AutoProcessor, "from_pretrained", lambda *_, **__: Tokenizer())
    message = refused("export.processor", checkpoint, tmp_path, image=media / "picture.png")
    assert "Tokenizer made no pixels from the image" in message


def test_a_checkpoint_without_processor(media: Path, tmp_path: Path, refused: Refused) -> None:
    write_config("llava_onevision", tmp_path / "config.json")
    refused("export.processor", tmp_path, tmp_path, image=media / "picture.png")


def command(*arguments: str | Path) -> int:
    """Exit status of `focusc ARGUMENTS`."""
    from focusc.cli import main

    try:
        main([str(argument) for argument in arguments])
    except SystemExit as leaving:
        return int(leaving.code or 0)
    return 0


def test_command_line(checkpoint: Path, media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model.onnx"
    assert command("export", checkpoint, "-o", out, "--video", media / "clip.mp4", "--frames", "2", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["layout"]["grid"] == [2, 2, 2] and told["max_rel"] < 1e-4
    assert command("export", checkpoint, "-o", out, "--image", media / "clip.mp4") == 1
    assert "error[export.image]" in capsys.readouterr().err
    assert command("export", checkpoint, "-o", out, "--image", "a.png", "--video", "b.mp4") == 1
    assert "error[export.options]: --image and --video are both given" in capsys.readouterr().err
    assert command("export", checkpoint, "-o", tmp_path / "no" / "model.onnx", "--random-weights", "0") == 1
    assert "error[file.write]" in capsys.readouterr().err
    assert command("export", "demo", "-o", out, "--frames", "2") == 2
