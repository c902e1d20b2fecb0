"""Transformers folders: what is read of them, which part is built, and that it computes what Transformers does."""

from __future__ import annotations

import importlib.util
import json
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgec.errors import EdgecError
from edgec.frontends import huggingface
from edgec.frontends.base import Loaded, Request, SourceOptions, load_source
from edgec.quantization.run.executor import Executor
from tests.support import hf_folders as folders

RELATIVE = 1e-5
RNG = np.random.default_rng(3)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def _load(folder: Path, part: str | None = None, **inputs: tuple[int, ...]) -> Loaded:
    return load_source(folder, inputs=inputs, options=SourceOptions(signature=part))


def _refused(folder: Path, **options: Any) -> EdgecError:
    with pytest.raises(EdgecError) as caught:
        _load(folder, **options)
    return caught.value


def _codes(loaded: Loaded) -> list[str]:
    return [finding.code for finding in loaded.findings]


def _close(value: Any, wanted: Any) -> None:
    reference = wanted.detach().numpy() if hasattr(wanted, "detach") else wanted
    np.testing.assert_allclose(value, reference, rtol=0, atol=RELATIVE * float(np.abs(reference).max()))


# What is accepted --------------------------------------------------------------------------------------------------


def test_accepts(tmp_path: Path) -> None:
    def accepted() -> bool:
        return huggingface.accepts(Request(spec="", path=tmp_path, inputs={}, options=SourceOptions()))

    assert not accepted()
    (tmp_path / "config.json").write_text('{"layers": 3}')
    assert not accepted()
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert accepted()
    (tmp_path / "config.json").write_text("{")
    assert accepted()
    assert _refused(tmp_path).code == "source/malformed"


def test_a_downloaded_folder_has_the_models_name(tmp_path: Path) -> None:
    folder = tmp_path / "models--someone--tiny-net" / "snapshots" / "0123abcd"
    folders.write(folder, "ResNetModel", folders.RESNET)
    assert _load(folder, pixel_values=(1, 3, 16, 16)).model.name == "tiny-net"


# Images ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    image = pytest.importorskip("PIL.Image", reason="needs edgec[image]")
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(4):
        image.fromarray(RNG.integers(0, 255, (40, 50, 3)).astype(np.uint8)).save(folder / f"{index}.png")
    return folder


def test_image_classifier(tmp_path: Path, photos: Path) -> None:
    from edgec.pipeline import run_build

    folder = tmp_path / "pets"
    model = folders.write(folder, "ResNetForImageClassification", folders.RESNET, preprocessor_config=folders.IMAGES)
    result = run_build(
        folder, target="linux-x86_64", precision="int8", effort="fast", calibration=photos, output=tmp_path
    )
    assert result.bundle is not None
    with result.bundle as bundle:
        manifest = bundle.manifest
        assert manifest.name == "pets"
        assert manifest.labels == ("cat", "dog", "owl")
        assert manifest.inputs[0].source.shape == (1, 3, 28, 28)
        facts: dict[str, Any] = manifest.preprocessing
        assert (facts["kind"], facts["crop_pct"], facts["image_mean"]) == ("image", 0.875, [0.5, 0.4, 0.3])
        golden = bundle.goldens()[0]
    feed = golden.inputs
    # Shorter side to 28/0.875 = 32, centre 28 × 28, bicubic, (x/255 − mean)/std.
    from PIL import Image

    picture = Image.open(photos / "0.png").resize((40, 32), Image.Resampling.BICUBIC).crop((6, 2, 34, 30))
    wanted = (np.asarray(picture) / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.25, 0.3]
    _close(feed["pixel_values"][0], wanted.transpose(2, 0, 1))
    with torch.no_grad():
        _close(golden.float_outputs["logits"], model(torch.from_numpy(feed["pixel_values"])).logits)
    assert "calibration/image-defaults" not in [finding.code for finding in result.findings]


# Text --------------------------------------------------------------------------------------------------------------


def test_text_classifier(tmp_path: Path) -> None:
    folder = tmp_path / "words"
    model = folders.write(folder, "BertForSequenceClassification", {**folders.BERT, "num_labels": 3})
    folders.write_tokenizer(folder, model_max_length=16)
    loaded = _load(folder)
    assert [(s.name, s.shape, s.dtype) for s in loaded.model.inputs()] == [
        (name, (1, 16), "int64") for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    assert loaded.labels == ()  # LABEL_0 … are no labels
    assert _codes(loaded) == ["source/hf-size"]
    assert (loaded.preprocessing["max_length"], loaded.preprocessing["pad_token"]) == (16, "[PAD]")
    assert set(loaded.preprocessing["files"]) == {"tokenizer.json", "tokenizer_config.json"}
    ids, mask = RNG.integers(4, 13, (1, 16)), np.ones((1, 16), np.int64)
    mask[:, 10:] = 0
    kinds = (np.arange(16) > 5).astype(np.int64)[None]
    got = Executor(loaded.model).run({"input_ids": ids, "attention_mask": mask, "token_type_ids": kinds})
    with torch.no_grad():
        wanted = model(torch.tensor(ids), torch.tensor(mask), torch.tensor(kinds)).logits
    _close(got["logits"], wanted)


def test_calibration_text_is_tokenized(tmp_path: Path) -> None:
    from edgec.quantization.data.samples import open_samples

    folder = tmp_path / "words"
    folders.write(folder, "BertModel", folders.BERT)
    folders.write_tokenizer(folder, model_max_length=8, padding_side="left")
    loaded = _load(folder)
    text = tmp_path / "text.txt"
    text.write_text("the small device\n\na model is fast\n")
    first, second = open_samples(text, loaded.model.inputs(), usual=loaded.recipe)
    assert first["input_ids"].tolist() == [[0, 0, 0, 2, 10, 7, 5, 3]]
    assert first["attention_mask"].tolist() == [[0, 0, 0, 1, 1, 1, 1, 1]]
    assert second["input_ids"].tolist() == [[0, 0, 2, 9, 6, 12, 8, 3]]
    with pytest.raises(EdgecError, match="text needs a tokenizer"):
        open_samples(text, loaded.model.inputs())


def test_sentence_encoder(tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    model, dense = folders.write_sentence_encoder(
        folder, pooling_mode_mean_tokens=True, pooling_mode_max_tokens=True, pooling_mode_lasttoken=True
    )
    loaded = _load(folder)
    assert [s.name for s in loaded.model.outputs()] == ["sentence_embedding"]
    ids, mask = RNG.integers(4, 13, (1, 16)), np.ones((1, 16), np.int64)
    mask[:, 9:] = 0
    feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    with torch.no_grad():
        states = model(torch.tensor(ids), torch.tensor(mask)).last_hidden_state[0, :9]
        pooled = torch.cat([states.max(0).values, states.mean(0), states[-1]])
        embedding = torch.tanh(dense["linear.weight"] @ pooled + dense["linear.bias"])
    _close(Executor(loaded.model).run(feed)["sentence_embedding"][0], embedding / embedding.norm())


# Several networks in one folder ------------------------------------------------------------------------------------


def test_towers(tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    model = folders.write(folder, "CLIPModel", folders.CLIP)
    image, text = _load(folder), _load(folder, "text")
    assert [f.message for f in image.findings if f.code == "source/hf-parts"] == [
        "the model is several networks: image, text; image is built"
    ]
    assert (image.model.name, text.model.name) == ("clip-image", "clip-text")
    pixels = RNG.standard_normal((1, 3, 32, 32)).astype(np.float32)
    ids, mask = RNG.integers(3, 40, (1, 12)), np.ones((1, 12), np.int64)
    with torch.no_grad():
        wanted = model(input_ids=torch.tensor(ids), pixel_values=torch.tensor(pixels))
    got = Executor(image.model).run({"pixel_values": pixels})["image_embeds"]
    _close(got / np.linalg.norm(got), wanted.image_embeds)
    got = Executor(text.model).run({"input_ids": ids, "attention_mask": mask})["text_embeds"]
    _close(got / np.linalg.norm(got), wanted.text_embeds)


def _steps(loaded: Loaded, tokens: np.ndarray[Any, Any], **fixed: Any) -> list[Any]:
    """Logits of each token, the past carried from step to step as a device would, padded on the left."""
    step = Executor(loaded.model)
    specs = {spec.name: spec.shape for spec in loaded.model.inputs()}
    past = {name: np.zeros(shape, np.float32) for name, shape in specs.items() if name.startswith("past")}
    room = specs["attention_mask"][1]
    logits = []
    for index, token in enumerate(tokens):
        feed = {"input_ids": np.array([[token]]), "attention_mask": np.zeros((1, room), np.int64), **past, **fixed}
        feed["attention_mask"][0, room - index - 1 :] = 1
        if "position_ids" in specs:
            feed["position_ids"] = np.array([[index]])
        answer = step.run(feed)
        logits.append(answer["logits"][0, 0])
        past = {name: answer[name.replace("past_key_values", "present")][:, :, 1:] for name in past}
    return logits


def test_language_model_step_by_step(tmp_path: Path) -> None:
    folder = tmp_path / "llama"
    model = folders.write(folder, "LlamaForCausalLM", folders.DECODER)
    loaded = _load(folder)
    assert {s.name: s.shape for s in loaded.model.inputs()}["past_key_values.1.value"] == (1, 2, 15, 4)
    tokens = RNG.integers(3, 40, 9)
    with torch.no_grad():
        wanted = model(torch.tensor(tokens)[None]).logits[0]
    _close(np.stack(_steps(loaded, tokens)), wanted)


def test_encoder_and_decoder(tmp_path: Path) -> None:
    folder = tmp_path / "seq2seq"
    model = folders.write(folder, "BartForConditionalGeneration", folders.BART)
    encoder, decoder = _load(folder), _load(folder, "decoder", **{"past_key_values.0.key": (1, 2, 11, 8)})
    ids, mask, tokens = RNG.integers(3, 40, (1, 16)), np.ones((1, 16), np.int64), RNG.integers(3, 40, 7)
    mask[:, 12:] = 0
    states = Executor(encoder.model).run({"input_ids": ids, "attention_mask": mask})["last_hidden_state"]
    with torch.no_grad():
        wanted = model(torch.tensor(ids), torch.tensor(mask), decoder_input_ids=torch.tensor(tokens)[None]).logits[0]
    _close(np.stack(_steps(decoder, tokens, encoder_hidden_states=states, encoder_attention_mask=mask)), wanted)


# Sizes -------------------------------------------------------------------------------------------------------------


def test_sizes_are_the_users_the_processors_the_configs(tmp_path: Path) -> None:
    from edgec.frontends._hf.opening import open_folder

    def shape(**given: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(next(iter(open_folder(folder, given=given).inputs.values())).shape)

    folder = tmp_path / "m"
    folders.write(folder, "ResNetModel", {**folders.RESNET, "image_size": 48})
    assert shape() == (1, 3, 48, 48)
    for size, wanted in (
        ({"size": {"height": 30, "width": 20}}, (1, 3, 30, 20)),
        ({"size": 32, "do_center_crop": True, "crop_size": {"height": 24, "width": 24}}, (1, 3, 24, 24)),
        ({"size": {"shortest_edge": 32, "longest_edge": 64}}, (1, 3, 48, 48)),
    ):
        (folder / "preprocessor_config.json").write_text(json.dumps({"do_resize": True, **size}))
        assert shape() == wanted
    assert shape(pixel_values=(1, 3, 8, 16)) == (1, 3, 8, 16)
    # Where nothing says it, our own choice is announced.
    folders.write(tmp_path / "n", "ResNetModel", folders.RESNET)
    assert [finding.code for finding in open_folder(tmp_path / "n").findings] == ["source/hf-size"]


def test_waveforms_and_their_recipe(tmp_path: Path) -> None:
    from edgec.frontends._hf.processor import read_processing

    table = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 8000, "do_normalize": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(table))
    found = read_processing(tmp_path, "input_values")
    assert found.sizes["sampling_rate"] == 8000
    assert found.recipe is not None
    assert (found.recipe.reader, found.recipe.audio.sample_rate, found.recipe.audio.normalize) == ("audio", 8000, True)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**table, "num_mel_bins": 80}))
    features = read_processing(tmp_path, "input_features")
    assert features.recipe is None
    assert [finding.code for finding in features.findings] == ["source/hf-features"]


# What is refused, and what is said ---------------------------------------------------------------------------------


def test_odd_weights_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folders.write(folder, "BertModel", folders.BERT)
    table = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**table, "architectures": ["BertForSequenceClassification"]}))
    found = {f.code: f for f in _load(folder, input_ids=(1, 4)).findings}
    assert found["source/hf-missing-weights"].message == (
        "2 weights of BertForSequenceClassification are not in the folder and have random values: "
        "classifier.bias, classifier.weight"
    )
    assert found["source/hf-missing-weights"].severity == "warning"


def test_pickled_weights_load_without_running_code(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    model = folders.write(folder, "ResNetModel", folders.RESNET)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    assert _codes(_load(folder, pixel_values=(1, 3, 16, 16))) == []

    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # type: ignore[return-value]

    torch.save({**model.state_dict(), "evil": Evil()}, folder / "pytorch_model.bin")
    assert _refused(folder).code == "source/hf-load"
    assert not (tmp_path / "ran").exists()


def test_code_in_the_folder_needs_trust(tmp_path: Path) -> None:
    code = "from pathlib import Path\nPath(__file__).parent.joinpath('ran').touch()\n"
    table = {"model_type": "own", "architectures": ["OwnModel"], "auto_map": {"AutoModel": "own.OwnModel"}}
    (tmp_path / "config.json").write_text(json.dumps(table))
    (tmp_path / "own.py").write_text(code)
    error = _refused(tmp_path)
    assert (error.code, error.finding.hint) == ("source/untrusted", "look at them, then give --trust")
    assert not (tmp_path / "ran").exists()


def test_refusals(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folders.write(folder, "BertModel", folders.BERT)
    error = _refused(folder, part="encodr")
    assert (error.code, "its parts are: model" in error.finding.hint) == ("source/hf-part", True)
    error = _refused(folder, inputs_ids=(1, 8))
    assert (error.code, "input_ids" in error.finding.hint) == ("source/hf-input", True)
    (folder / "model.safetensors").unlink()
    error = _refused(folder)
    assert (error.code, "model.safetensors" in error.finding.hint) == ("source/hf-load", True)
    (folder / "config.json").write_text('{"architectures": ["BertForTelepathy"], "model_type": "bert"}')
    assert _refused(folder).code == "source/hf-unknown"
    (folder / "config.json").write_text('{"model_type": "telepathy"}')
    assert _refused(folder).code == "source/hf-unknown"


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "transformers" else find(name, *rest),
    )
    error = _refused(tmp_path)
    assert (error.code, error.finding.hint) == ("env/missing-extra", "pip install 'edgec[huggingface]'")
    assert "needs transformers" in error.finding.message


def test_sentence_modules_that_cannot_be_built(tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    folders.write_sentence_encoder(folder, pooling_mode_mean_tokens=True)
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_weightedmean_tokens": true}')
    error = _refused(folder)
    assert (error.code, "weightedmean_tokens" in error.finding.message) == ("source/hf-module", True)
    shutil.rmtree(folder / "1_Pooling")
    (folder / "modules.json").write_text('[{"path": "", "type": "st.Transformer"}, {"path": "1", "type": "st.LSTM"}]')
    assert _refused(folder).code == "source/hf-module"
    (folder / "modules.json").write_text("[3]")
    assert _refused(folder).code == "source/malformed"
