"""Parameters of the learned reader: fresh ones, and those of the released checkpoints.

A released file is a ``.pt`` whose entry ``model`` has one sub-dictionary a module; a bank needs ``cog_mem_bank`` and
``per_mem_bank`` (427 M parameters of several billions). Their hyper-parameters stand in the ``config.yaml`` of the
run's folder, beside the file or beside the folder ``checkpoints`` that it lies in. Key names: branch openvla-codebase
of shihao1895/MemoryVLA.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from streammem.banks.pcmb.options import STREAMS, Options, Streams, preset
from streammem.errors import ConfigError, ModelUnavailable

if TYPE_CHECKING:
    from torch import Tensor

MODULES: dict[Streams, str] = {"perceptual": "per_mem_bank", "cognitive": "cog_mem_bank"}
CONFIG_NAMES = {"mem_length": "length", "retrieval_layers": "layers"}
LARGEST_CONFIG = 1 << 20


class Loaded(NamedTuple):
    """Weights of the streams that the file has. ``trained_merges`` says whether a bank ever overflowed in training
    (groups of at most L frames never do); None where the file doesn't tell."""

    weights: dict[Streams, dict[str, Tensor]]
    options: Options
    trained_merges: bool | None


def shapes(d: int, options: Options) -> dict[str, tuple[int, ...]]:
    """Every parameter of one stream of width ``d`` and its shape."""
    found: dict[str, tuple[int, ...]] = {}

    def linear(name: str, into: int, out: int) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = (out, into), (out,)

    for layer in range(options.layers):
        block = f"retrieval_blocks.{layer}"
        for name in ("q_proj", "k_proj", "v_proj"):
            linear(f"{block}.{name}", d, d)
        linear(f"{block}.ffn.0", d, 4 * d)
        linear(f"{block}.ffn.2", 4 * d, d)
        for name in ("attn_norm", "ffn_norm"):
            found[f"{block}.{name}.weight"] = found[f"{block}.{name}.bias"] = (d,)
    if options.fusion == "gate" and options.gate_layers == 2:
        linear("gate_fusion_blocks.hidden", 2 * d, d)
    if options.fusion == "gate":
        linear("gate_fusion_blocks.proj", (1 if options.gate_layers == 2 else 2) * d, d)
    if options.time_code == "learned":
        linear("timestep_encoder.mlp.0", options.features(d), d)
        linear("timestep_encoder.mlp.2", d, d)
    return found


def fresh(d: int, options: Options, *, seed: int) -> dict[str, Tensor]:
    """Untrained parameters (float32, CPU): projections as ``torch.nn.Linear`` starts them, gate ~ N(0, 1e-3) so that it
    starts near one half (page 2.a.4), time code ~ N(0, 0.02) as in DiT. Useless for retrieval before training."""
    import torch

    if d % options.heads or d % 2:
        raise ConfigError(f"{d} channels can't be split into {options.heads} heads", hint="an even width, whole heads")
    random = torch.Generator().manual_seed(seed)
    made: dict[str, Tensor] = {}
    sizes = shapes(d, options)
    for name, shape in sizes.items():
        if "norm" in name:
            made[name] = torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
        elif name.startswith("gate_fusion_blocks.proj"):
            made[name] = torch.randn(shape, generator=random) * 1e-3
        elif name.startswith("timestep_encoder"):
            made[name] = torch.randn(shape, generator=random) * (0.02 if name.endswith("weight") else 0.0)
        else:
            width = sizes[name.rsplit(".", 1)[0] + ".weight"][1]
            made[name] = (torch.rand(shape, generator=random) * 2 - 1) / width**0.5
    return made


def check(weights: Mapping[str, Tensor], options: Options, where: str) -> int:
    """The width ``d`` of one stream's weights. A bias may be absent; everything else must be there and fit, and be
    finite. Raises ModelUnavailable that names the first parameter that doesn't."""
    import torch

    first = weights.get("retrieval_blocks.0.q_proj.weight")
    if first is None or first.ndim != 2:
        raise ModelUnavailable(
            f"{where} has no retrieval_blocks.0.q_proj.weight", hint="is it a MemoryVLA checkpoint (openvla codebase)?"
        )
    d = int(first.shape[0])
    if d % options.heads:
        raise ModelUnavailable(f"{where}: width {d} doesn't split into {options.heads} heads")
    expected = shapes(d, options)
    for name, shape in expected.items():
        found = weights.get(name)
        if found is None and name.endswith(".bias"):
            continue
        if found is None or tuple(found.shape) != shape:
            got = "is missing" if found is None else f"has shape {tuple(found.shape)}"
            raise ModelUnavailable(
                f"{where}: {name} {got}, expected {shape}", hint="do its options (config.yaml) belong to this file?"
            )
        if not bool(torch.isfinite(found).all()):
            raise ModelUnavailable(f"{where}: {name} holds NaN or infinity", hint="load the file anew")
    extra = sorted(set(weights) - set(expected))
    if extra:
        raise ModelUnavailable(
            f"{where} has {len(extra)} parameters that this bank doesn't know: {', '.join(extra[:3])}",
            hint="other layers or another code base; an ignored parameter would change every answer",
        )
    return d


def load_released(path: str | Path, *, device: str = "cpu", dtype: Any = None, **changes: Any) -> Loaded:
    """The banks of a released checkpoint, with the options of its ``config.yaml`` (and ``changes`` on top).

    The file is memory-mapped: only the banks' 0.85 GB are read. ``dtype`` (default: the file's) converts them.
    Raises ModelUnavailable for a file that is missing, damaged, or none of these; ConfigError for its config.yaml."""
    import torch

    file = Path(path).expanduser()
    if not file.is_file():
        raise ModelUnavailable(f"no checkpoint at {str(file)!r}", hint="give the .pt file of a MemoryVLA run")
    options, trained_merges = released_options(file, **changes)
    # torch reports a file that holds code with the error type of the module that it unpickles with.
    unsafe = torch.serialization.pickle.UnpicklingError
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, ValueError, EOFError, OSError, unsafe) as error:
        raise ModelUnavailable(
            f"{str(file)!r} can't be read as weights: {str(error).splitlines()[0][:200]}",
            hint="a .pt as torch.save writes it, with tensors only",
        ) from error
    modules = content.get("model") if isinstance(content, dict) else None
    if not isinstance(modules, dict):
        raise ModelUnavailable(f"{str(file)!r} has no entry 'model'", hint="is it a MemoryVLA checkpoint?")
    found: dict[Streams, dict[str, Tensor]] = {}
    for stream in STREAMS:
        tensors = modules.get(MODULES[stream])
        if tensors is None:
            continue
        if not isinstance(tensors, dict) or not all(isinstance(each, torch.Tensor) for each in tensors.values()):
            raise ModelUnavailable(f"{str(file)!r}: {MODULES[stream]} isn't a dictionary of tensors")
        features = tensors.get("timestep_encoder.mlp.0.weight")
        own = options if features is None else options.changed(time_features=int(features.shape[1]))
        check(tensors, own, f"{file.name}: {MODULES[stream]}")
        found[stream] = {
            name: each.detach().to(device=device, dtype=dtype or each.dtype).contiguous()
            for name, each in tensors.items()
        }
    if not found:
        raise ModelUnavailable(
            f"{str(file)!r} has neither {' nor '.join(MODULES.values())}",
            hint=f"it has: {', '.join(map(str, modules))}",
        )
    return Loaded(found, options, trained_merges)


def released_options(file: Path, **changes: Any) -> tuple[Options, bool | None]:
    """What the ``config.yaml`` of a checkpoint says. Raises ConfigError where it is missing or says two things."""
    import yaml

    places = [file.parent / "config.yaml", file.parent.parent / "config.yaml"]
    place = next((each for each in places if each.is_file()), None)
    if place is None:
        raise ConfigError(
            f"no config.yaml beside {str(file)!r} or its folder",
            hint="it holds update_fused, mem_length and retrieval_layers: copy it there",
        )
    try:
        text = place.read_bytes()[: LARGEST_CONFIG + 1].decode("utf-8")
        content = yaml.safe_load(text) if len(text) <= LARGEST_CONFIG else None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{str(place)!r} can't be read: {str(error)[:200]}") from error
    said: dict[str, Any] = {}
    for name, value in _leaves(content):
        if name in {*CONFIG_NAMES, "update_fused", "group_size"} and said.setdefault(name, value) != value:
            raise ConfigError(f"{str(place)!r} says {name} is {said[name]!r} and {value!r}")
    for name, value in said.items():
        kind = bool if name == "update_fused" else int
        if type(value) is not kind:
            raise ConfigError(f"{str(place)!r}: {name} is {value!r}, expected {kind.__name__}")
    given: dict[str, Any] = {option: said[name] for name, option in CONFIG_NAMES.items() if name in said}
    if "update_fused" in said:
        given["stored"] = "fused" if said["update_fused"] else "raw"
    options = preset("openvla_code", **{**given, **changes})
    group = said.get("group_size")
    return options, None if group is None else group > options.length


def _leaves(content: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    if isinstance(content, dict) and depth < 8:
        for name, value in content.items():
            if isinstance(value, dict):
                yield from _leaves(value, depth + 1)
            else:
                yield str(name), value
