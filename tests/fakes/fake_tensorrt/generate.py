"""Makes the module: enums, classes, their methods and properties, from a surface."""

import ast
import re
import sys
import types
from dataclasses import dataclass
from functools import partial, partialmethod
from importlib.machinery import ModuleSpec

from fake_tensorrt.building import BUILDING
from fake_tensorrt.machine import Machine
from fake_tensorrt.running import RUNNING
from fake_tensorrt.surface import load_surface, parse

SEVERITY = "ILogger.Severity"


def make_fake(release, machine=None):
    """The module of a release, on its own machine (see `Machine`), which is `trt.machine`."""
    return _Factory(release, machine or Machine()).module


class _Factory:
    """Builds one module."""

    def __init__(self, release, machine):
        self.surface = load_surface(release)
        self.module = types.ModuleType("tensorrt", f"A fake TensorRT {self.surface['version']}.")
        self.module.__spec__ = ModuleSpec("tensorrt", None)  # for who asks whether it is installed
        self.module.__version__ = self.surface["version"]
        self.module.machine = machine
        self.behaviour = BUILDING | RUNNING
        self.enums = {name: _enum(name, m) for name, m in self.surface["enums"].items()}
        self.enums["Logger.Severity"] = self.enums[SEVERITY]
        self.classes = {}
        for name in self.surface["classes"]:
            self._class(name)
        for path, enum in self.enums.items():
            outer, _, inner = path.rpartition(".")
            setattr(self.classes[outer] if outer else self.module, inner, enum)
        for name, cls in self.classes.items():
            for constant, value in self.surface["classes"][name].get("constants", {}).items():
                setattr(cls, constant, self.enums[SEVERITY].__members__[value.split(".")[1]])
        for name, value in self.surface["constants"].items():
            enum, member = value.rsplit(".", 1)
            setattr(self.module, name, self.enums[enum](int(self.enums[enum].__members__[member])))
        for name, signatures in self.surface["functions"].items():
            setattr(self.module, name, self._method("", name, signatures))

    def _class(self, name):
        # An enum may have methods of its own, such as DataType.itemsize.
        if made := self.classes.get(name) or self.enums.get(name):
            return made
        about = self.surface["classes"][name]
        base = self._class(about["bases"][0]) if about.get("bases") else _base(name)
        namespace = {  # what a surface leaves out
            method: partialmethod(partial(work, self))
            for method, work in self.behaviour.get(name, {}).items()
            if method.startswith("__")
        }
        namespace |= {"__slots__": (), "__module__": "tensorrt", "_fake": self}
        namespace |= {"_constructible": about.get("constructible", False)}
        methods, properties = about.get("methods", {}), about.get("properties", {})
        namespace |= {m: self._method(name, m, signatures) for m, signatures in methods.items()}
        namespace |= {p: self._property(name, p, *row) for p, row in properties.items()}
        cls = self.classes[name] = type(base)(name, (base,), namespace)
        if "." not in name:
            setattr(self.module, name, cls)
        return cls

    def new(self, kind, /, **state):
        """An object that Python could not construct, as the module's own calls return it."""
        cls = self.classes[kind]
        made = cls.__new__(cls)
        made._state = types.SimpleNamespace(**state)
        return made

    def memory(self, data):
        """An `IHostMemory`."""
        return self.classes["IHostMemory"].__new__(self.classes["IHostMemory"], data)

    def emit(self, logger, severity, text):
        """Gives the logger a line; what it raises is printed and swallowed, as in the real one."""
        try:
            logger.log(self.enums[SEVERITY].__members__[severity], text)
        except Exception as error:
            print(f"[ERROR] Exception caught in log(): {error}", file=sys.stderr)

    def refuse(self, this, text, answer=None):
        """Logs an error to an object's logger; returns what the real one answers then."""
        self.emit(this._state.logger, "ERROR", text)
        return answer

    def _find(self, name, member):
        """What models a member of a class, of its own or of a class that it comes from."""
        owners = (name, *self.surface["classes"].get(name, {}).get("bases", []))
        found = (self.behaviour.get(owner, {}).get(member) for owner in owners)
        return next((work for work in found if work is not None), None)

    def _method(self, name, method, signatures):
        """A method of a class, or a function of the module, whose name is empty."""
        work = self._find(name, method)
        overloads = [parse(text) for text in signatures]
        bound = overloads[0].bound

        def call(*given, **kwargs):
            values = self._bind(method, overloads, given[bound:], kwargs)
            if work is not None:
                return work(self, *given[:bound], **values)
            if method != "__init__":
                raise NotImplementedError(f"the fake does not model {name}.{method}")
            given[0]._state = types.SimpleNamespace(**values)
            return None

        call.__name__ = method
        return call if bound else staticmethod(call)

    def _bind(self, name, overloads, args, kwargs):
        for overload in overloads:
            try:
                given = overload.bind(args, kwargs)
                values = {p.name: self.convert(p.type, v, p.default) for p, v in given.items()}
            except (TypeError, ValueError):  # not this one
                continue
            left = [p for p in overload.parameters if p not in given]
            return values | {p.name: self._default(p.default) for p in left}
        types_ = "\n".join(f"    {n}. {o.text}" for n, o in enumerate(overloads, 1))
        shown = ", ".join([*map(repr, args), *(f"{k}={v!r}" for k, v in kwargs.items())])
        raise TypeError(
            f"{name}(): incompatible function arguments. The following argument types are "
            f"supported:\n{types_}\n\nInvoked with: {shown}"
        )

    def _default(self, text):
        enum = re.fullmatch(r"<([\w.]+)\.(\w+): \d+>", text)
        if enum is None:
            return ast.literal_eval(text)
        owner = SEVERITY if enum[1] == "Severity" else enum[1]
        return self.enums[owner].__members__[enum[2]]

    def _property(self, name, prop, access, kind):
        work = self._find(name, prop)

        def get(this):
            if work is not None:
                return work(self, this)
            return vars(this._state).get(prop, self._zero(kind))

        def put(this, value):
            default = None if kind.split(".")[-1] in self.enums else ""
            try:
                setattr(this._state, prop, self.convert(kind, value, default))
            except (TypeError, ValueError) as error:
                raise TypeError(f"{name}.{prop} is a {kind}, not {value!r}") from error

        return property(get if "r" in access else None, put if "w" in access else None)

    def _zero(self, kind):
        """What a property is where nothing has set it."""
        plain = {"int": 0, "bool": False, "str": "", "float": 0.0, "list[str]": []}
        if kind in plain:
            return plain[kind]
        enum = self.enums.get(kind.removeprefix("trt.").split("::")[-1])
        return None if enum is None else enum(0)

    def convert(self, kind, value, default=None):
        """Turns an argument into what the parameter takes; TypeError, ValueError if it cannot."""
        if value is None and default is not None:
            return None
        name = re.sub(r"^(?:trt\.|nv\w+::(?:v_\d_\d::)?)", "", kind)
        if name == "Dims" and isinstance(value, list | tuple):
            return self.classes["Dims"](_whole_numbers(value))
        if kind in CONVERTERS:
            return CONVERTERS[kind](value)
        expected = self.enums.get(name) or self.classes.get(name) or EXACT.get(kind, object)
        if not isinstance(value, expected):
            raise TypeError(f"{value!r} is no {kind}")
        return value


def _whole_number(value):
    """A float has no __index__; a handle of another library may have only __int__."""
    if isinstance(value, float | str | bytes) or value is None:
        raise TypeError(f"{value!r} is no whole number")
    return int(value)


def _whole_numbers(value):
    if isinstance(value, str | bytes) or not hasattr(value, "__len__"):
        raise TypeError(f"{value!r} is no sequence")
    return [_whole_number(one) for one in value]


# How pybind11 takes what is no class of the module.
CONVERTERS = {"int": _whole_number, "typing.SupportsInt": _whole_number}
CONVERTERS |= {"collections.abc.Sequence[typing.SupportsInt]": _whole_numbers}
CONVERTERS |= {"typing_extensions.Buffer": memoryview}
EXACT = {"str": str, "bool": bool, "float": (float, int), "list": list, "tuple": tuple}


class _Meta(type):
    """Refuses what pybind11 refuses: no constructor, and a subclass that forgot the base's."""

    def __call__(cls, *args, **kwargs):
        if not cls._constructible:
            raise TypeError(f"{cls.__module__}.{cls.__name__}: No constructor defined!")
        made = super().__call__(*args, **kwargs)
        if not hasattr(made, "_state"):
            raise TypeError(f"{cls.__name__}.__init__() must be called when overriding __init__")
        return made


class _Object(metaclass=_Meta):
    """No attribute but the surface's; a subclass written in Python may have any."""

    __slots__ = ("__weakref__", "_state")


class _Memory(bytes):
    """The buffer protocol, which a class of Python 3.11 can only inherit, and nothing else."""

    __slots__ = ()
    _allowed = frozenset(("nbytes", "dtype", "_fake"))

    def __getattribute__(self, name):
        if not name.startswith("__") and name not in _Memory._allowed:
            raise AttributeError(f"'tensorrt.IHostMemory' object has no attribute {name!r}")
        return bytes.__getattribute__(self, name)

    def __len__(self):
        raise TypeError("object of type 'tensorrt.IHostMemory' has no len()")

    def __getitem__(self, index):
        raise TypeError("'tensorrt.IHostMemory' object is not subscriptable")


def _base(name):
    return _Memory if name == "IHostMemory" else _Object


def _enum(name, members):
    """As pybind11's: no int, equal to its own kind only, hashed by value."""
    short = name.rpartition(".")[2]

    @dataclass(frozen=True, repr=False)
    class Enum:
        value: int

        def __post_init__(self):
            object.__setattr__(self, "value", int(self.value))
            if self.value not in members.values():
                raise ValueError(f"{self.value} is no {name}")

        @property
        def name(self):
            return next(key for key, number in members.items() if number == self.value)

        def __hash__(self):
            return self.value

        def __repr__(self):
            return f"<{short}.{self.name}: {self.value}>"

        def __str__(self):
            return f"{short}.{self.name}"

        def __int__(self):
            return self.value

        __index__ = __int__

    Enum.__name__ = Enum.__qualname__ = short
    if short == "DataType":
        Enum.itemsize = property(lambda self: ITEM_SIZE[self.name])
    Enum.__members__ = {key: Enum(number) for key, number in members.items()}
    for key, value in Enum.__members__.items():
        setattr(Enum, key, value)
    return Enum


ITEM_SIZE = {"FLOAT": 4, "HALF": 2, "BF16": 2, "INT8": 1, "INT32": 4, "INT64": 8, "BOOL": 1}
ITEM_SIZE |= {"UINT8": 1, "FP8": 1}
