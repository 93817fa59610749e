"""Whether published weights are and do what their card says."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from deqzoo.benchmark.certify import certify, has_certificate
from deqzoo.benchmark.cost import executed_flops
from deqzoo.benchmark.evaluate import evaluate
from deqzoo.benchmark.evaluate_text import evaluate_text
from deqzoo.benchmark.inputs import input_spec, prepared
from deqzoo.benchmark.measure import SAMPLE_FIGURES, sample_figures
from deqzoo.benchmark.publish import differing
from deqzoo.data import EmbeddedSample, ImageData, TextData, embedded_samples
from deqzoo.errors import DeqzooError
from deqzoo.tasks import LanguageModel
from deqzoo.zoo import load, manifest
from deqzoo.zoo.layout import WEIGHTS_FILE
from deqzoo.zoo.release import read_results, release_folder
from deqzoo.zoo.stored import HUB_PREFIX
from deqzoo.zoo.tensors import sha256
from deqzoo.zoo.weights_config import WeightsConfig, read_config

_NUM_CERTIFIED = 16
"""Images of the sample whose certificate is recomputed: each takes hundreds of iterations in float64."""

Verdict = Literal["held", "did not hold", "not checked"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that a card says.

    Attributes:
        what: it is about.
        claimed: what the card says.
        found: what was found.
        verdict: whether it held.
    """

    what: str
    claimed: str
    found: str
    verdict: Verdict


def verify(
    source: str | Path,
    *,
    data: ImageData | TextData | None = None,
    device: str | torch.device = "cpu",
    batch_size: int = 512,
    progress: bool = False,
) -> list[Check]:
    """Checks a release: hashes, loading, the figures of its card, its certificate.

    Args:
        source: the name of a model, "hf-hub:org/name[@revision]", or a folder that `deqzoo export` wrote.
        data: the full test set; None takes the sample in the package, for which releases have figures too.
        device: where to evaluate.
        batch_size: most images at once.
        progress: whether to show bars on a terminal's stderr.

    Returns:
        A list of checks. After a failed hash the weights are not read, and the list ends.

    Raises:
        UnknownModelError: if it is no name, and nothing lies there.
        WeightsError: if there is no release to check.
    """
    folder = release_folder(source)
    config, results = read_config(folder), read_results(folder)
    checks = list(_hashes(str(source), folder, config))
    if any(check.verdict == "did not hold" for check in checks):
        return checks
    try:
        model: Any = load(folder)
    except DeqzooError as error:
        return [*checks, Check(what="loads", claimed="yes", found=str(error), verdict="did not hold")]
    checks.append(Check(what="loads", claimed="every tensor fits", found="they do", verdict="held"))
    checks.append(_parameters(model, results))
    options: dict[str, Any] = {"device": device, "batch_size": batch_size}
    if isinstance(data, TextData):
        checks += _text_figures(model, data, results["evaluation"], progress=progress, **options)
    elif isinstance(model, LanguageModel):
        checks.append(
            Check(
                what="perplexity",
                claimed=_number(results["evaluation"]["perplexity"]),
                found="not measured: name its text (--data)",
                verdict="not checked",
            )
        )
    elif data is None:
        checks += _figures("on the sample", results.get("sample"), sample_figures(model, **options))
        tag = model.net.pretrained_cfg["tag"]
        if tag in embedded_samples() and has_certificate(model.net):
            checks += _rates(model.cpu(), EmbeddedSample(tag), results.get("certificate"))
    else:
        claimed = {key: results["evaluation"][key] for key in SAMPLE_FIGURES}
        checks += _figures("on the test set", claimed, evaluate(model, data, progress=progress, **options).as_dict())
        checks += _operations(model, data, results.get("flops"))
        checks += _certificate(model.cpu(), data, results.get("certificate"), progress)
    checks.append(
        Check(what="speed", claimed="of the machine that is named", found="depends on it", verdict="not checked")
    )
    return checks


def _hashes(source: str, folder: Path, config: WeightsConfig) -> Iterator[Check]:
    found = sha256((folder / WEIGHTS_FILE).read_bytes()) if (folder / WEIGHTS_FILE).is_file() else "no such file"
    yield _compared(f"SHA-256 of {WEIGHTS_FILE}", config.sha256, found)
    if not source.startswith(HUB_PREFIX):
        record = manifest.published(config.name)
        if record is not None and folder == manifest.embedded_folder(config.name):
            yield _compared("SHA-256 that this version pins", record.sha256, found)
        return
    from deqzoo.zoo import hub

    wrong = hub.differing_files(hub.parse(source.removeprefix(HUB_PREFIX))[0], folder)
    what, claimed = "all files", f"those of commit {folder.name[:12]}"
    if wrong is None:
        yield Check(what=what, claimed=claimed, found="the Hub cannot be reached", verdict="not checked")
    else:
        yield Check(
            what=what,
            claimed=claimed,
            found="; ".join(wrong) or "they are",
            verdict="did not hold" if wrong else "held",
        )


def _parameters(model: Any, results: Mapping[str, Any]) -> Check:
    count = sum(p.numel() for p in model.net.parameters())
    return _compared("parameters", f"{results['evaluation']['num_parameters']:,}", f"{count:,}")


def _figures(where: str, claimed: Mapping[str, Any] | None, found: Mapping[str, Any] | None) -> Iterator[Check]:
    if claimed is None or found is None:
        yield Check(what=f"accuracy {where}", claimed="not measured", found="no sample", verdict="not checked")
        return
    wrong = {key for key, *_ in differing(claimed, found)}
    for key in SAMPLE_FIGURES:
        yield Check(
            what=f"{key.replace('_', ' ')} {where}",
            claimed=_number(claimed[key]),
            found=_number(found[key]),
            verdict="did not hold" if key in wrong else "held",
        )


def _text_figures(model: Any, data: TextData, claimed: Mapping[str, Any], **options: Any) -> Iterator[Check]:
    found: dict[str, Any] = evaluate_text(model, data, split=claimed["split"], **options).as_dict()
    for key, slack in (("num_tokens", 0.0), ("loss", 1e-3), ("perplexity", 5e-3), ("bits_per_char", 1e-3)):
        held = math.isclose(claimed[key], found[key], rel_tol=slack)
        yield Check(
            what=key.replace("_", " "),
            claimed=_number(claimed[key]),
            found=_number(found[key]),
            verdict="held" if held else "did not hold",
        )


def _operations(model: Any, data: ImageData, claimed: Mapping[str, Any] | None) -> Iterator[Check]:
    if claimed is None:
        return
    device = next(model.parameters()).device
    images = data.image_set("test").images[: claimed["num_images"]].to(device)
    found = executed_flops(model, prepared(images, input_spec(model.net)))["mean"]
    held = math.isclose(claimed["mean"], found, rel_tol=0.05)
    yield Check(
        what="MFLOPs per image",
        claimed=_number(claimed["mean"] / 1e6),
        found=_number(found / 1e6),
        verdict="held" if held else "did not hold",
    )


def _certificate(model: Any, data: ImageData, claimed: Mapping[str, Any] | None, progress: bool) -> Iterator[Check]:
    """Recomputes the certificate for the images that it was given for."""
    if claimed is None or not has_certificate(model.net):
        return
    images = claimed["num_images"] or 1
    proved = certify(model, data, rtol=claimed["rtol"], max_images=images, progress=progress).as_dict()
    for key in ("rate_max", "steps_max"):
        pairs = zip(claimed[key], proved[key], strict=True)
        held = all(_no_worse(b, a) for a, b in pairs)
        yield Check(
            what=f"certificate, {key.replace('_', ' ')}",
            claimed=str(claimed[key]),
            found=str(proved[key]),
            verdict="held" if held else "did not hold",
        )
    yield from _weights_alone(claimed, proved)


def _rates(model: Any, data: ImageData, claimed: Mapping[str, Any] | None) -> Iterator[Check]:
    """Recomputes the certificate for the sample: other images, so that only its being one is compared."""
    if claimed is None:
        return
    proved = certify(model, data, rtol=claimed["rtol"], max_images=_NUM_CERTIFIED).as_dict()
    bounded = None not in claimed["steps_max"]
    held = all(rate <= 1 for rate in proved["rate_max"]) and not (bounded and None in proved["steps_max"])
    yield Check(
        what="certificate on the sample",
        claimed="a bound on iterations" if bounded else "no bound for some images",
        found=f"at most {proved['steps_max']} iterations",
        verdict="held" if held else "did not hold",
    )
    yield from _weights_alone(claimed, proved)


def _weights_alone(claimed: Mapping[str, Any], proved: Mapping[str, Any]) -> Iterator[Check]:
    """Compares what certificates say of the weights, whatever the images are."""
    yield _compared("certificate, unique equilibria", str(claimed["unique"]), str(proved["unique"]))
    for key, sign in (("at_least", -1), ("at_most", 1)):
        for what, figure in claimed[key].items():
            found = proved[key].get(what)
            # Estimates stop somewhere, on every machine a little elsewhere.
            slack = abs(figure) * (1e-2 if claimed["estimated"] else 1e-6)
            held = found is not None and sign * (found - figure) <= slack
            yield Check(
                what=f"certificate, {what}",
                claimed=_number(figure),
                found=_number(found),
                verdict="held" if held else "did not hold",
            )


def _no_worse(found: float | None, claimed: float | None) -> bool:
    if claimed is None:
        return True
    return found is not None and found <= claimed * (1 + 1e-6) + (1 if isinstance(claimed, int) else 0)


def _compared(what: str, claimed: str, found: str) -> Check:
    return Check(what=what, claimed=claimed, found=found, verdict="held" if claimed == found else "did not hold")


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"
