"""What the parser says of a wrong option is one line: the option, its value, what would be right."""

import pytest

from litscale.cli.main import main
from litscale.cli.messages import in_one_line


def said(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main(["fit", *words])
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--trainer.max_stepz 3", "--trainer.max_stepz: there is no such option; did you mean max_steps?"),
        ("--trainer.max_steps abc", "--trainer.max_steps abc: expected a whole number"),
        ("--model.optimization.lr x", "--model.optimization.lr x: expected a number or null"),
        (
            "--model.optimization.wamup_steps 3",
            "--model.optimization.wamup_steps: there is no such option; did you mean warmup_steps?",
        ),
        ("--model.generation.temperature x", "--model.generation.temperature x: expected a number"),
        ("--model.generation.iterations x", "--model.generation.iterations x: expected a whole number or a list"),
        (
            "--model.generation.iterations [3, 4]",
            "--model.generation.iterations [3,: expected a whole number or a list; write a list as '[1,2]'",
        ),
        ("--data.pitch_range [3,4,5]", "--data.pitch_range [3, 4, 5]: expected a list of 2 or null"),
        ("--model.generation.parallel_level x", "--model.generation.parallel_level x: expected a whole number or null"),
        (
            "--model.generation.iteration 3",
            "--model.generation.iteration: there is no such option; did you mean iterations?",
        ),
        (
            "--model.generation.temper=1",
            "--model.generation.temper: there is no such option; did you mean temperature?",
        ),
        (
            "--model.generation.decod jacobi",
            "--model.generation.decod: there is no such option; did you mean decoding?",
        ),
        ("--trainer.max_step 3", "--trainer.max_step: there is no such option; did you mean max_steps?"),
        ("--trainer.gradient 3", "--trainer.gradient: there is no such option; did you mean gradient_clip_val?"),
        ("--checkpoints.min 3", "--checkpoints.min: there is no such option; did you mean minutes?"),
        ("--data.batch 3", "--data.batch: there is no such option; did you mean batch_size?"),
        ("--ckpt last", "--ckpt: there is no such option; did you mean ckpt_path?"),
        ("--conf quick.yaml", "--conf: there is no such option; did you mean config?"),
        ("--model.network.guidng 3", "--model.network.guidng: there is no such option; did you mean guiding?"),
        ("--data.corpus null", "--data.corpus: there is no such option"),
        (
            "--model lit_models.LitFractl",
            "--model lit_models.LitFractl: lit_models has no LitFractl; did you mean lit_models.LitFractal?",
        ),
        ("--model foo.Bar", "--model foo.Bar: No module named 'foo'"),
        ("--data.source nonsense", "--data.source nonsense: there is no class nonsense"),
        (
            "--trainer.callbacks+=callbacks.Samples --trainer.callbacks.num_samples x",
            "--trainer.callbacks.num_samples x: expected a whole number",
        ),
        (
            "--trainer.callbacks+=callbacks.Samples --trainer.callbacks.num_sample 3",
            "--trainer.callbacks.num_sample: there is no such option; did you mean num_samples?",
        ),
        ("--dat.window 3", "--dat.window: there is no such option; did you mean data?"),
        ("extra", "extra is neither an option nor the value of one: options begin with --"),
    ],
)
def test_a_wrong_option_is_one_line(words, message, capsys):
    assert said(capsys, "--config", "demo.yaml", *words.split()) == f"litscale fit: error: {message}\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("trainer: {max_steps: abc}", "wrong.yaml: trainer.max_steps abc: expected a whole number"),
        ("data: {init_args: {window: x}}", "wrong.yaml: data.window x: expected a whole number"),
        ("modle: {init_args: {foo: 3}}", "wrong.yaml: modle.init_args.foo: there is no such option"),
        ("a: [b", "wrong.yaml is not a YAML file: expected ',' or ']', but got '<stream end>' in line 1"),
    ],
)
def test_the_config_that_holds_a_wrong_value_is_named(content, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.yaml").write_text(content)
    error = said(capsys, "--config", "demo.yaml", "--config", "wrong.yaml")
    assert error.endswith(f"error: {message}\n")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "text", ['{"model.optimization.lr": "fast"}', '{"model": {"init_args": {"optimization": {"lr": "fast"}}}}']
)
def test_options_as_text_are_named_and_no_config_that_has_the_option_too(capsys, text):
    long = text.replace("{", '{"trainer.default_root_dir": "runs/' + "a" * 300 + '", ', 1)
    for given in (text, long):
        error = said(capsys, "--config", "demo.yaml", "--config", given)
        assert error.endswith("error: --config: model.optimization.lr fast: expected a number or null\n")


def test_what_is_missing_is_named(capsys):
    assert "error: --data and --model must be given: by a config, such as --config demo.yaml" in said(capsys)
    assert said(capsys, "--model", "lit_models.LitFractal").endswith("error: --model.network must be given\n")


def test_choices_are_listed_once():
    message = """Parser key "trainer.precision":
  Does not validate against any of the Union subtypes
  Errors:
    - Expected a typing.Literal[64, 32]
    - Expected a typing.Literal['64', '16-true']
    - Expected a <class 'NoneType'>
  Given value type: <class 'str'>
  Given value: 17"""
    short = "--trainer.precision 17: expected one of 64, 32, 16-true or null"
    assert in_one_line(message, ["fit", "--trainer.precision", "17"]) == short
