"""`icnet evaluate`: the score of a model on a data set, or of two models against each other."""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from icnet_deploy.command import (
    Goal,
    add_output_options,
    check_outputs,
    command,
    options,
    size,
)
from icnet_deploy.command import parser as make_parser
from icnet_deploy.data import Dataset, Sample
from icnet_deploy.data.options import (
    OF_LABELS,
    add_data_options,
    open_data,
    refuse_data_options,
)
from icnet_deploy.errors import InputError
from icnet_deploy.evaluation.diagnose.command import diagnosed, refuse_beside
from icnet_deploy.evaluation.evaluate.compared import compare
from icnet_deploy.evaluation.evaluate.compared_report import (
    compare_page,
    comparison_text,
    offer_contrast,
)
from icnet_deploy.evaluation.evaluate.releases_report import (
    add_compare_options,
    compared_releases,
    refuse_beside_compare,
)
from icnet_deploy.evaluation.evaluate.report import (
    evaluate_page,
    offer_errors,
    plot_of,
    score_text,
)
from icnet_deploy.evaluation.evaluate.result import (
    Evaluations,
    evaluate,
    read_result,
    require_same_data,
    save_prediction,
)
from icnet_deploy.evaluation.model import (
    Model,
    float_model,
    kind_of_model,
    open_model,
    require_pytorch,
)
from icnet_deploy.evaluation.origins import open_own
from icnet_deploy.evaluation.pictures import Gallery
from icnet_deploy.evaluation.score import Size, UInt8
from icnet_deploy.files import make_folder, require_folder_name, write_json, write_text
from icnet_deploy.runtime.backends.registry import ENGINE_RUNTIMES

_PICTURES = 6  # sets of pictures in a report: about 0.4 MB each


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "icnet evaluate",
        "Scores a model on labelled images, or compares two models.",
        "icnet evaluate icnet.onnx --dataset camvid --data CamVid --split val --report score.html",
    )
    what = "a checkpoint (.safetensors), an ONNX file, an engine, or a result that --json wrote"
    parser.add_argument("model", nargs="?", type=Path, metavar="MODEL", help=what)
    add_data_options(parser, required=False)
    _add_network_options(parser)
    options(parser, "to compare with another model").add_argument(
        "--against",
        type=Path,
        metavar="OTHER",
        help="the other model; also the file that MODEL was adopted from",
    )
    add_compare_options(parser)
    options(parser, "to find a wrong setting of a float32 network").add_argument(
        "--diagnose",
        action="store_true",
        help="try other channel orders, means, scales, labels and upsamplings on 20 images (or "
        "--limit N); exit code 1 if one scores clearly better",
    )
    group = options(parser, Goal.RUN)
    group.add_argument(
        "--size",
        type=size,
        metavar="HxW",
        help="the input size of a checkpoint or of --network (default: each image's own)",
    )
    group.add_argument(
        "--runtime",
        default="auto",
        metavar="NAME",
        help="auto; for an ONNX file onnxruntime or openvino; for an engine tensorrt or "
        "tensorrt-rtx (default: auto)",
    )
    group.add_argument(
        "--device", default="auto", metavar="NAME", help="auto, cpu or cuda (default: auto)"
    )
    add_output_options(parser)
    group = options(parser, Goal.RESULTS)
    group.add_argument(
        "--plot", type=Path, metavar="FILE", help="plot accuracy by the size of regions, as SVG"
    )
    group.add_argument(
        "--save-predictions",
        type=Path,
        metavar="DIR",
        help="write MODEL's label maps; for Cityscapes they hold label ids",
    )
    return parser


def _add_network_options(parser: argparse.ArgumentParser) -> None:
    from icnet_deploy.networks.own.request import add_network_options

    group = options(
        parser,
        Goal.NETWORK,
        "It replaces MODEL and runs in PyTorch. --label-set and --preprocessing must be given.",
    )
    group.add_argument(
        "--weights", type=Path, metavar="FILE", help="its weights, a .safetensors or .pth file"
    )
    add_network_options(group)


def _is_result(path: Path | None) -> bool:
    return path is not None and path.suffix == ".json"


def _models(arguments: argparse.Namespace) -> list[Path | None]:
    """MODEL and OTHER; None stands for the network of one's own (InputError)."""
    from icnet_deploy.networks.own.request import network_request

    network_request(arguments)  # refuses what is said of a network that is not named
    network, model = arguments.network, arguments.model
    if network is not None and model is not None:
        raise InputError(
            f"{model} and --network {network} both name the model: give only one, or compare the "
            f"two with --against {model}"
        )
    if network is None and model is None:
        raise InputError(
            "there is no model to score: name a MODEL, or a network of your own with --network "
            "PACKAGE.MODULE:FACTORY"
        )
    if network is None and arguments.weights is not None:
        raise InputError(
            f"--weights {arguments.weights} needs --network; a checkpoint is given as MODEL, "
            "without --weights"
        )
    return [model, *([] if arguments.against is None else [arguments.against])]


def _check(arguments: argparse.Namespace, paths: Sequence[Path | None]) -> None:
    """Finds out before the long work what is wrong with the request."""
    if arguments.diagnose:
        refuse_beside(arguments)
    scored = [path for path in paths if not _is_result(path)]
    given = arguments.dataset is not None and arguments.data is not None
    if scored and not given:
        name = scored[0] or arguments.network
        raise InputError(f"there are no images to score {name} on: give --dataset NAME --data DIR")
    if arguments.against is None and not scored:
        raise InputError(
            f"{arguments.model} is already a result: compare it with another result or a model "
            "(--against OTHER)"
        )
    if not scored:
        why = "recorded results need none"
        refuse_data_options(arguments, ("split", "limit", "group_by", *OF_LABELS, "exif"), why)
    if arguments.save_predictions and _is_result(arguments.model):
        raise InputError(
            f"--save-predictions needs a model, but {arguments.model} is a recorded result: name "
            "the model, or leave the option out"
        )
    if arguments.plot and arguments.plot.suffix != ".svg":
        raise InputError(
            f"--plot {arguments.plot}: the plot is an SVG file; give a name that ends in .svg"
        )
    check_outputs(arguments, "plot")
    if arguments.save_predictions:
        require_folder_name(arguments.save_predictions, "--save-predictions")
        make_folder(arguments.save_predictions)


def _score(
    paths: Sequence[Path | None], dataset: Dataset, gallery: Gallery, arguments: argparse.Namespace
) -> Evaluations:
    """Scores the models among MODEL and OTHER, and saves and draws what was asked for."""
    folder: Path | None = arguments.save_predictions

    def look(sample: Sample, mapped: list[UInt8]) -> None:
        if folder:  # _check saw to it that the first of them is MODEL
            save_prediction(folder, dataset.label_set, sample.name, mapped[0])
        if len(mapped) == 2:
            offer_contrast(gallery, dataset.label_set, sample, mapped[0], mapped[1])
        else:
            offer_errors(gallery, dataset.label_set, sample, mapped[0])

    with ExitStack() as stack:
        models = [
            _open_network(arguments, at, runtime, device)
            if path is None
            else stack.enter_context(
                open_model(path, at, runtime, device, [p for p in paths if p and p != path])
            )
            for path, at, runtime, device in openings(paths, arguments)
        ]
        return evaluate(models, dataset, look)


def _open_network(
    arguments: argparse.Namespace, at: Size | None, runtime: str, device: str
) -> Model:
    """The network of one's own, in PyTorch; raises as `open_network`."""
    from icnet_deploy.networks.own.request import network_request

    require_pytorch(runtime, device)
    request = network_request(arguments)
    assert request is not None  # see `_models`
    reference = open_own(request, [at] if at else [])
    return float_model(reference.at(at), Path(request.factory))


def openings(
    paths: Sequence[Path | None], arguments: argparse.Namespace
) -> list[tuple[Path | None, Size | None, str, str]]:
    """Models with size, runtime and device: each option goes to the kind of file it speaks of.

    None, the network of one's own, is taken for a checkpoint. Where there is no such file among
    the models, it is left to be refused.
    """
    kinds = ["checkpoint" if path is None else kind_of_model(path) for path in paths]

    def meant_for(*of: str) -> list[bool]:
        there = set(of).intersection(kinds)
        return [not there or kind in there for kind in kinds]

    sized = meant_for("checkpoint")
    run = meant_for("engine" if arguments.runtime in ENGINE_RUNTIMES else "onnx")
    placed = meant_for("onnx") if arguments.device == "cpu" else meant_for("onnx", "engine")
    return [
        (
            path,
            arguments.size if sized[i] else None,
            arguments.runtime if run[i] else "auto",
            arguments.device if placed[i] else "auto",
        )
        for i, path in enumerate(paths)
    ]


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `icnet evaluate`; returns its exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    refuse_beside_compare(parser, arguments)
    if arguments.compare:
        return compared_releases(arguments)
    paths = _models(arguments)
    _check(arguments, paths)
    if arguments.diagnose:
        return diagnosed(arguments)
    results = [read_result(path) if path and _is_result(path) else {} for path in paths]
    scored = [path for path in paths if not _is_result(path)]
    drawn = arguments.report is not None and len(scored) == len(paths)
    gallery = Gallery(_PICTURES if drawn else 0)
    fresh = Evaluations([], None)
    if scored:
        dataset = open_data(arguments)
        for result in filter(None, results):
            require_same_data(result, dataset)
        fresh = _score(scored, dataset, gallery, arguments)
        if arguments.save_predictions and not fresh.models[0].score.has_truth():
            print(
                f"{len(dataset)} label maps are in {arguments.save_predictions}; there is no "
                "score, because no pixel of these images is labelled"
            )
            return 0
        fresh.models[0].score.require_truth()
    fresh_ones = iter(fresh.models)
    results = [result or next(fresh_ones).to_dict() for result in results]
    _finish(arguments, results, fresh, gallery)
    return 0


def _finish(
    arguments: argparse.Namespace,
    results: list[dict[str, Any]],
    fresh: Evaluations,
    gallery: Gallery,
) -> None:
    """Writes the files that were asked for, and prints the results."""
    label_set = fresh.models[0].score.dataset.label_set if fresh.models else None
    if len(results) == 2:
        compared = compare(results[0], results[1], fresh.alike)
        outcome, text = compared.to_dict(), comparison_text(compared)
        page = compare_page(compared, gallery, label_set) if arguments.report else ""
    else:
        outcome, text = results[0], score_text(results[0])
        page = evaluate_page(outcome, fresh.models[0].score, gallery) if arguments.report else ""
    if arguments.json:
        write_json(arguments.json, outcome)
    if arguments.report:
        write_text(arguments.report, page)
    if arguments.plot:
        write_text(arguments.plot, plot_of(results) + "\n")
    print(text)  # last: its reader may close the pipe
