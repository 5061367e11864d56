from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smlt.core.backend import BackendOptions
from smlt.core.errors import ConfigError
from smlt.core.job import JobSpec, Seconds
from smlt.core.layers import Text, read_layers, user_config
from smlt.core.plugins import Entry, Registry
from smlt.core.settings import Settings, resolve
from smlt.core.units import Every


class HereOptions(BackendOptions):
    function_time_limit: Seconds | None = None
    chaos: tuple[str, ...] = ()
    label: str = ""


class Here:
    Options = HereOptions


class AwayOptions(BackendOptions):
    region: str = "eu"


class Away:
    Options = AwayOptions


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.entries["backends"] = {"local": Entry(f"{__name__}:Here"), "away": Entry(f"{__name__}:Away")}
    registry.entries["planners"] = {"fixed": Entry("smlt.planners.fixed:FixedPlanner")}
    return registry


@pytest.fixture
def load(tmp_path, registry):
    """Resolve settings in an empty folder; `project`, `user` and `config` are texts of files to put there first."""

    def load(*, project="", user="", config="", env=None, flags=None, **more) -> Settings:
        write(tmp_path / "smlt.toml", project)
        write(tmp_path / "home/.config/smlt/config.toml", user)
        write(tmp_path / "other/some.toml", config)
        layers = read_layers(
            cwd=tmp_path,
            env={"HOME": str(tmp_path / "home"), **(env or {})},
            flags=flags,
            config=Path("other/some.toml") if config else None,
            **more,
        )
        return resolve(layers, registry)

    return load


def write(path: Path, text: str) -> None:
    if text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@pytest.fixture
def problems(load):
    """The problems that settings have, as text."""

    def problems(**given) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(**given)
        assert caught.value.exit_code == 2
        for problem in caught.value.problems:
            assert str(problem) in caught.value.message
        return [str(problem) for problem in caught.value.problems]

    return problems


TASK = {"task": "task.py:Digits"}


def test_flags_alone_are_enough(load, tmp_path):
    settings = load(flags=TASK)
    assert settings.spec == JobSpec.model_validate({"job": {"task": "task.py:Digits"}})
    assert settings.origins == {"job.task": "--task"}
    assert settings.folder == tmp_path


def test_each_layer_yields_to_the_one_above(load):
    sources = {
        "flags": {"epochs": Text("5"), **TASK},
        "env": {"SMLT_EPOCHS": "4", "SMLT_JOB__SEED": "4"},
        "config": "[job]\nepochs = 3\nseed = 3\nglobal_batch = 3",
        "project": "[job]\nepochs = 2\nseed = 2\nglobal_batch = 2\n[train]\nmicro_batch = 2",
        "user": "[job]\nepochs = 1\n[train]\nmicro_batch = 1\nclip_norm = 1\n",
    }
    settings = load(**sources)
    job, train = settings.spec.job, settings.spec.train
    assert (job.epochs, job.seed, job.global_batch, train.micro_batch, train.clip_norm) == (5, 4, 3, 2, 1)
    assert train.precision == "fp32"
    home = settings.origins.pop("train.clip_norm")
    assert home.endswith("config.toml")
    assert settings.origins == {
        "job.task": "--task",
        "job.epochs": "--epochs",
        "job.seed": "SMLT_JOB__SEED",
        "job.global_batch": "other/some.toml",
        "train.micro_batch": "smlt.toml",
    }


def test_a_named_flag_is_stronger_than_set(load):
    assert load(flags={**TASK, "epochs": 2}, assignments=["job.epochs=3"]).spec.job.epochs == 2


def test_the_task_is_looked_up_beside_the_file_that_names_it(load, tmp_path):
    assert load(config='[job]\ntask = "task.py:A"').folder == tmp_path / "other"
    assert load(config='[job]\ntask = "task.py:A"', env={"SMLT_TASK": "b.py:B"}).folder == tmp_path


def test_without_the_project_file(load):
    project = '[job]\nepochs = 7\ntask = "x.py:X"'
    assert load(project=project, flags=TASK, project_file=False).spec.job.epochs is None


def test_a_project_file_named_by_config_counts_once(load, tmp_path, registry):
    write(tmp_path / "smlt.toml", "[job]\nepoch = 7")
    layers = read_layers(cwd=tmp_path, env={"HOME": str(tmp_path)}, flags=TASK, config=Path("./smlt.toml"))
    with pytest.raises(ConfigError, match="1 mistake in"):
        resolve(layers, registry)


def test_a_variable_can_name_the_config_file(load, tmp_path):
    write(tmp_path / "far.toml", '[job]\ntask = "t.py:T"\nseed = 9')
    assert load(env={"SMLT_CONFIG": "far.toml"}).spec.job.seed == 9


@pytest.mark.parametrize(
    ("env", "folder"),
    [
        ({"HOME": "/h"}, "/h/.config/smlt/config.toml"),
        ({"HOME": "/h", "XDG_CONFIG_HOME": "/x"}, "/x/smlt/config.toml"),
        ({"HOME": "/h", "XDG_CONFIG_HOME": ""}, "/h/.config/smlt/config.toml"),
    ],
)
def test_where_the_users_configuration_is(env, folder):
    assert user_config(env) == Path(folder)


def test_steps_above_replace_epochs_below(load):
    job = load(project='[job]\ntask = "t.py:T"\nepochs = 10', flags={"steps": Text("20")}).spec.job
    assert (job.epochs, job.steps) == (None, 20)


def test_tables_merge_key_by_key_and_lists_are_replaced(load):
    settings = load(
        user='[job]\nparams = { a = 1, b = 1, deep = { x = 1 } }\nsecrets = ["A", "B"]',
        project='[job]\ntask = "t.py:T"\nparams = { b = 2, deep = { y = 2 } }\nsecrets = ["C"]',
        assignments=["job.params.c=3"],
    )
    assert settings.spec.job.params == {"a": 1, "b": 2, "c": 3, "deep": {"x": 1, "y": 2}}
    assert settings.spec.job.secrets == ("C",)
    assert settings.origins["job.params.deep.y"] == "smlt.toml"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("64", 64), ("0.5", 0.5), ("true", True), ("relu", "relu"), ('"64"', "64"), ("[1, 2]", [1, 2]), ("", ""),
        ("{ x = 1 }", {"x": 1}), ("1\nb = 2", "1\nb = 2"), ("a=b", "a=b"), ("2e-4", 2e-4),
    ],
)  # fmt: skip
def test_set_reads_values_as_toml_and_bare_words_as_text(load, text, value):
    assert load(flags=TASK, assignments=[f"job.params.p={text}"]).spec.job.params == {"p": value}


def test_text_settings_take_text_that_looks_like_a_number(load):
    spec = load(flags={**TASK, "name": Text("2024")}, assignments=["backend.label=1.10", "sync.channel=7"]).spec
    assert (spec.job.name, spec.backend.options["label"], spec.sync.channel) == ("2024", "1.10", "7")


def test_repeated_set_gathers_for_a_list_and_replaces_otherwise(load):
    kills = ["kill:rank=1,step=7", "hang:rank=0,step=3"]
    texts = [f"backend.chaos={kill}" for kill in kills] + ["job.seed=1", "job.seed=2", "job.include=*.py"]
    spec = load(flags=TASK, assignments=texts).spec
    assert spec.backend.options["chaos"] == kills
    assert spec.job.seed == 2
    assert spec.job.include == ("*.py",)


def test_quoted_keys(load):
    assert load(flags=TASK, assignments=['job.params."a.b"=1']).origins['job.params."a.b"'] == "--set"


def test_dotted_keys_of_a_python_call(load):
    spec = load(flags=TASK, keyed={"job.params": {"a": 1}, "train.precision": "bf16"}).spec
    assert (spec.job.params, spec.train.precision) == ({"a": 1}, "bf16")


def test_units_and_objects(load):
    project = """
    [job]
    task = "pkg.tasks:Digits"
    target = { metric = "accuracy", at_least = 0.97 }
    global_batch = [{ from_epoch = 0, size = 64 }, { from_epoch = 3, size = 256 }]
    eval_every = "200steps"
    [limits]
    deadline = "30m"
    budget = "2usd"
    [workers]
    memory = "2GiB"
    count = 12
    """
    spec = load(project=project).spec
    assert (spec.limits.deadline, spec.limits.budget, spec.workers.memory) == (1800, 2, 2048)
    assert spec.job.eval_every == Every(200, "step")
    assert [phase.size for phase in spec.job.batch_phases] == [64, 256]
    assert spec.workers.max == 12, "a maximum that nobody set does not hold a number that the user asked for"
    assert JobSpec.from_plain(spec.to_plain()) == spec


def test_options_for_another_backend_are_set_aside_not_refused(load):
    settings = load(
        project='[job]\ntask = "t.py:T"\n[backend]\nname = "away"\nregion = "us"', flags={"backend": "local"}
    )
    assert settings.spec.backend.name == "local"
    assert settings.spec.backend.options == {}
    assert [item.path for item in settings.set_aside] == [("backend", "region")]


def test_options_that_name_no_backend_are_for_the_chosen_one(load):
    settings = load(user='[backend]\nregion = "us"', flags={**TASK, "backend": "away"})
    assert settings.spec.backend.options == {"region": "us"}


def test_every_mistake_is_told_at_once_with_its_origin(problems):
    project = """
    epochs = 3
    sync = 4
    [job]
    task = "task.py"
    epoch = 3
    epochs = 3.5
    name = "a b"
    deadline = "3m"
    eval_every = "soon"
    global_batch = [{ from_epoch = 0 }, { from_epoch = 1, size = "a" }]
    target = { metric = "loss" }
    params = { day = 2020-01-01 }
    include = "*"
    [limts]
    a = 1
    [limits]
    budget = "2eur"
    deadline = 0
    [workers]
    count = "many"
    memory = 2048
    [train]
    clip_norm = inf
    precision = "fp8"
    [backend]
    function_time_limit = "x"
    labl = 3
    [planner]
    name = "fixd"
    """
    found = problems(project=project, env={"SMLT_WORKER": "2"}, assignments=["job.seed=x", "foo"])
    assert found == [
        "--set: 'foo': not an assignment (write it like --set job.seed=1)",
        "environment: SMLT_WORKER: no such setting (did you mean 'SMLT_WORKERS'?)",
        "smlt.toml: epochs: no such section (it belongs in [job])",
        "smlt.toml: sync: is a section, not 4 (write [sync] and keys below it)",
        "smlt.toml: job.task: 'task.py' names no class; write it like task.py:Digits or package.module:Digits",
        "smlt.toml: job.name: a name has letters, digits, '.', '_' and '-', 64 at most, not 'a b'",
        "smlt.toml: job.epochs: must be a whole number, not 3.5 (like epochs = 10)",
        "smlt.toml: job.global_batch[0].size: is missing",
        'smlt.toml: job.global_batch[1].size: must be a whole number, not "a"',
        '--set: job.seed: must be a whole number, not "x"',
        "smlt.toml: job.target: a target wants exactly one of at_least and at_most",
        "smlt.toml: job.params: 'day' is a date; params are numbers, text, lists and tables",
        'smlt.toml: job.include: must be a list, not "*" (like include = ["*.py", "data/*"])',
        "smlt.toml: job.eval_every: not a period: 'soon'; write it like 1epoch or 200steps",
        "smlt.toml: job.epoch: no such key (did you mean 'epochs'?)",
        "smlt.toml: job.deadline: no such key (it belongs in [limits])",
        "smlt.toml: train.clip_norm: must be a finite number, not inf (like clip_norm = 1.0)",
        "smlt.toml: train.precision: must be 'fp32' or 'bf16', not \"fp8\"",
        "smlt.toml: limits.deadline: a duration must be more than 0",
        "smlt.toml: limits.budget: not an amount of money: '2eur'; write US dollars like 2usd or 0.50usd",
        "smlt.toml: workers.count: must be 'auto' or a whole number, not \"many\" (like count = 2)",
        "smlt.toml: workers.memory: not a size of memory: 2048; write it with a unit, like 512MiB or 2GiB, or 'auto'",
        "smlt.toml: limts: no such section (did you mean 'limits'?)",
        "smlt.toml: backend.function_time_limit: not a duration: 'x'; "
        "write seconds or use s, m, h, d, like 90s, 30m or 2h30m",
        "smlt.toml: backend.labl: no such key (did you mean 'label'?)",
        "smlt.toml: planner.name: no planner is called 'fixd' (did you mean 'fixed'?)",
    ]


def test_a_file_that_cannot_be_read_may_have_had_the_task(problems):
    assert problems(project="[job\ntask = 'task.py:X'") == [
        "smlt.toml: line 1, column 5: not valid TOML: expected ']' at the end of a table declaration"
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "job.task: no task (give `smlt train task.py:Class`"),
        ({"flags": {"task": ":X"}}, "':X' names no class"),
        ({"flags": {**TASK, "workers": Text("0")}}, "--workers: workers.count: must be 'auto' or at least 1, not 0"),
        ({"flags": {**TASK, "workers": True}}, "workers.count: must be 'auto' or a whole number, not true"),
        ({"flags": {**TASK, "backend": "loca"}}, "--backend: backend.name: no backend is called 'loca' (did"),
        ({"flags": TASK, "env": {"SMLT_BACKEND": "zzz"}}, "no backend is called 'zzz' (known: away, local)"),
        ({"flags": TASK, "env": {"SMLT_JOBS__SEED": "1"}}, "SMLT_JOBS__SEED: jobs: no such section (did"),
        ({"flags": TASK, "env": {"SMLT_X": "1"}}, "SMLT_X: no such setting (settings are SMLT_<SECTION>__<KEY>"),
        ({"flags": TASK, "project": "[job]\nseed = -1"}, "smlt.toml: job.seed: must be at least 0, not -1"),
        ({"flags": TASK, "project": "[job]\nepochs = 1\nsteps = 1"}, "job: give epochs or steps, not both"),
        ({"flags": TASK, "project": "[workers]\ncount = 4\nmax = 2"}, "workers: count = 4 is more than max = 2"),
        ({"flags": TASK, "project": "[job]\nglobal_batch = 'x'"}, "must be a whole number or a list, not \"x\""),
        ({"flags": TASK, "project": "[job]\nglobal_batch = 0"}, "must be at least 1 or a list, not 0"),
        (
            {"flags": TASK, "project": "[job]\nglobal_batch = [{from_epoch = 1, size = 2}]"},
            "a batch schedule starts at epoch 0 and its epochs ascend",
        ),
        ({"flags": TASK, "project": "[job]\nparams = 3"}, "job.params: must be a table, not 3"),
        ({"flags": TASK, "project": "[backend]\nname = 3"}, "backend.name: must be text, not 3"),
        ({"flags": TASK, "project": "job = [1]"}, "smlt.toml: job: is a section, not [1]"),
        ({"flags": TASK, "project": "[zebra]"}, "smlt.toml: zebra: no such section (known: backend, job,"),
        ({"flags": TASK, "project": "[job]\nseed ="}, "smlt.toml: end of document: not valid TOML: invalid value"),
        ({"flags": TASK, "project": "[job]\nname = digits"}, "smlt.toml: line 2, column 8: not valid TOML"),
        ({"flags": TASK, "project": "[job]\nname = digits"}, "(text is written in quotes)"),
        ({"flags": TASK, "user": "[job\n"}, "smlt/config.toml: line 1, column 5: not valid TOML"),
        ({"flags": TASK, "assignments": ["=3"]}, "--set: '=3': not an assignment"),
        ({"flags": TASK, "assignments": ["job.seed"]}, "--set: 'job.seed': not an assignment"),
        ({"flags": TASK, "assignments": ["seed=3"]}, "--set: seed: no such section (it belongs in [job])"),
        ({"flags": TASK, "keyed": {"job seed": 3}}, "--settings: 'job seed': not a key"),
    ],
)  # fmt: skip
def test_what_a_mistake_says(problems, given, expected):
    found = problems(**given)
    assert len(found) == 1
    assert expected in found[0]


def test_a_missing_config_file(tmp_path, registry):
    layers = read_layers(cwd=tmp_path, env={"HOME": str(tmp_path)}, flags=TASK, config=Path("no.toml"))
    with pytest.raises(ConfigError, match=r"--config: no\.toml: no such file"):
        resolve(layers, registry)


def test_a_config_that_is_a_folder_or_no_text(tmp_path, registry):
    (tmp_path / "smlt.toml").mkdir()
    (tmp_path / "c.toml").write_bytes(b"a = '\xff'")
    layers = read_layers(cwd=tmp_path, env={"HOME": str(tmp_path)}, flags=TASK, config=Path("c.toml"))
    with pytest.raises(ConfigError, match=r"(?s)c\.toml: is not UTF-8.*smlt\.toml: cannot be read"):
        resolve(layers, registry)


def test_a_mistake_in_a_layer_that_is_overruled_by_key_is_no_mistake(load):
    assert load(project="[job]\nseed = 'x'", flags={**TASK, "seed": Text("1")}).spec.job.seed == 1


plain_keys = st.text("abcdefghij_", min_size=1, max_size=8)


@given(
    weak=st.dictionaries(plain_keys, st.integers() | st.booleans() | st.text(max_size=5), max_size=6),
    strong=st.dictionaries(plain_keys, st.integers() | st.booleans() | st.text(max_size=5), max_size=6),
)
def test_the_stronger_layer_wins_for_any_params(weak, strong):
    registry = Registry()
    registry.entries["backends"] = {"local": Entry(f"{__name__}:Here")}
    nowhere = Path("/nowhere")
    env = {"HOME": "/nowhere"}
    upper = read_layers(cwd=nowhere, env=env, flags=TASK, keyed={f"job.params.{key}": strong[key] for key in strong})
    lower = read_layers(cwd=nowhere, env=env, keyed={f"job.params.{key}": weak[key] for key in weak})
    layers = type(upper)(upper.ordered + lower.ordered, (), nowhere)
    assert resolve(layers, registry).spec.job.params == {**weak, **strong}


@given(st.text(max_size=30))
def test_any_assignment_is_read_or_named(text):
    registry = Registry()
    registry.entries["backends"] = {"local": Entry(f"{__name__}:Here")}
    layers = read_layers(cwd=Path("/nowhere"), env={"HOME": "/nowhere"}, flags=TASK, assignments=[text])
    with pytest.raises(ConfigError):
        resolve(layers, registry)


@given(st.text(max_size=30))
def test_any_value_of_a_text_setting_arrives(text):
    registry = Registry()
    registry.entries["backends"] = {"local": Entry(f"{__name__}:Here")}
    spec = resolve(
        read_layers(cwd=Path("/nowhere"), env={"HOME": "/nowhere"}, flags={**TASK}, keyed={"backend.label": text}),
        registry,
    ).spec
    assert spec.backend.options == {"label": text}
