"""``litscale report``: one HTML file that holds all it shows."""

import base64
import io
import json
import re
import shutil
import wave
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from PIL import Image

from litscale.cli.main import main
from litscale.cli.report.contents import LARGEST, Limits, read_contents
from litscale.cli.report.page import Selection, report

VOID = {"meta", "img", "br", "input", "link", "hr"}


class Page(HTMLParser):
    """A page as a browser sees it, which must be well-formed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text, self.ids = [], [], [], set()
        self.feed(text.replace("<wbr>", ""))  # which only says where a word may break
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in {tag}"
        if tag not in VOID:
            self.open.append(tag)
        if "id" in dict(attrs):
            assert dict(attrs)["id"] not in self.ids
            self.ids.add(dict(attrs)["id"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text.append(data)

    def sources(self, *tags):
        """What elements of these kinds load."""
        return [attrs["src"] for tag, attrs in self.tags if tag in tags and "src" in attrs]

    @property
    def words(self):
        """The text that is seen."""
        return " ".join(" ".join(self.text).split())


def decoded(uri):
    """The kind and the bytes of a data URI."""
    kind, _, data = uri.removeprefix("data:").partition(",")
    assert kind.endswith(";base64")
    return kind.removesuffix(";base64"), base64.b64decode(unquote_to_bytes(data), validate=True)


def test_the_page_is_well_formed_and_loads_nothing(make_run):
    text = report([make_run("demo")], Selection())
    assert text.startswith("<!doctype html>")
    page = Page(text)
    assert {"script", "link", "iframe", "object"}.isdisjoint(tag for tag, _ in page.tags)
    for tag, attrs in page.tags:
        for name in ("src", "href", "action", "srcset", "poster"):
            if name in attrs:
                assert attrs[name].startswith(("data:", "#")), (tag, attrs[name][:80])
    assert "http://" not in text
    assert "https://" not in text
    assert "url(" not in text
    targets = {attrs["href"] for tag, attrs in page.tags if tag == "a" and attrs["href"].startswith("#")}
    assert {target[1:] for target in targets} <= page.ids
    assert {"summary", "scores", "curves", "evaluations", "tables", "pictures", "samples", "manifest"} <= page.ids
    (policy,) = [attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv")]
    assert policy.startswith("default-src 'none'")


def test_many_scores_are_folded_away_behind_the_first(make_run):
    run = make_run("demo")
    path = next(run.glob("scores_*.json"))
    scores = json.loads(path.read_text())
    scores["scores"] |= {f"music/number_{i}": float(i) for i in range(30)}
    path.write_text(json.dumps(scores))
    text = report([run], Selection()).replace("<wbr>", "")
    shown, folded = text[text.index('id="scores"') : text.index('id="samples"')].split("<details>")
    assert shown.count("<tr>") == 1 + 12
    assert shown.count("music/number_") + folded.count("music/number_") == 30
    assert f"{folded.count('<tr>') - 1} more scores" in folded


def test_an_evaluation_of_more_scores_than_steps_has_them_as_rows(make_run):
    run = make_run("demo")
    step = run / "evaluations" / "test" / "step_20" / "evaluated.json"
    record = json.loads(step.read_text())
    step.write_text(json.dumps(record | {"scores": {f"val/score_{i}": float(i) for i in range(15)}}))
    shutil.rmtree(run / "evaluations" / "test" / "step_40")
    page = Page(report([run], Selection()))
    evaluations = page.words[page.words.index("Evaluations of checkpoints") :]
    rows = [evaluations.index(word) for word in (" 20 ", "checkpoint step_20.ckpt", "val/score_0", "val/score_10")]
    assert rows == sorted(rows)
    assert "4 more scores" in evaluations
    # a picture of one dot would say less
    assert not [attrs["alt"] for tag, attrs in page.tags if tag == "img" and "evaluation/" in attrs["alt"]]


def test_sounds_and_pictures_are_those_of_the_run(make_run):
    run = make_run("demo")
    page = Page(report([run], Selection(Limits(samples=3))))
    sounds = [decoded(uri) for uri in page.sources("audio")]
    assert [kind for kind, _ in sounds] == ["audio/wav"] * 5  # three of six predictions, two samples of the training
    files = [*sorted((run / "predictions").glob("*/*.wav"))[:3], *sorted((run / "samples").glob("*/*.wav"))]
    assert [data for _, data in sounds] == [path.read_bytes() for path in files]
    for _, data in sounds:
        with wave.open(io.BytesIO(data)) as file:
            assert file.getnframes() == 100
    for uri in page.sources("img"):
        kind, data = decoded(uri)
        if kind == "image/svg+xml":
            assert b"<svg" in data
        else:
            Image.open(io.BytesIO(data), formats=[kind.removeprefix("image/").upper()]).verify()
    assert "3 of 6 samples" in page.words
    links = [attrs for tag, attrs in page.tags if tag == "a" and "download" in attrs]
    assert decoded(links[0]["href"]) == ("audio/midi", b"MThd")


def test_what_the_page_says(make_run):
    words = Page(report([make_run("demo", score=1.625)], Selection())).words
    for said in (
        "model LitFractal",
        "data PianoRollDataModule",
        "last logged step 49",
        "checkpoints last.ckpt",
        "status finished",
        "device hours 6.25",
        "weights last.ckpt, step 49 (overwritten since)",
        "test/nats_per_step 1.625",
        "The best: val/fid at step 40",
        "test, 3 of the batches",
        "polyphony 3.9 4.1",
        "polyphony 2.5",
        "reason SIGTERM",
        "commit: 0123abcd",
        "litscale fit --config demo.yaml",
        "nll_passes: 3",
        "api_key: ***",
    ):
        assert said in words, said
    assert "abc123secret" not in words
    assert "new_files" not in words  # there are none


def test_runs_stand_side_by_side(make_run):
    runs = [make_run("small", score=2.5), make_run("large", score=1.25)]
    one, both = (Page(report(given, Selection())) for given in (runs[:1], runs))
    assert "test/nats_per_step 2.5 1.25" in both.words
    alts = [[attrs["alt"] for tag, attrs in page.tags if tag == "img"] for page in (one, both)]
    curves = [[alt for alt in each if alt.endswith("over the steps")] for each in alts]
    # one picture for each metric, however many runs
    assert curves[0] == curves[1]
    assert curves[0] == [
        f"{name} over the steps"
        for name in ("val/nats_per_step", "train/loss", "evaluation/test, 3 of the batches/val/fid")
    ]
    svg = next(data for kind, data in map(decoded, both.sources("img")) if kind == "image/svg+xml").decode()
    assert "small" in svg
    assert "large" in svg


def test_tables_of_one_file_have_one_heading_and_say_what_they_are(make_run):
    text = report([make_run("demo")], Selection())
    assert text.count("<h3>music_validate.md</h3>") == 1
    assert re.search(r"4.1.*Distances of features\..*pitch_.*0\.75", text, re.DOTALL)


def test_long_names_break_between_their_parts(make_run):
    text = report([make_run("demo")], Selection())
    assert "pitch_<wbr>count" in text
    assert "Piano<wbr>Roll<wbr>Data<wbr>Module" in text
    assert "test/<wbr>nats_<wbr>per_<wbr>step" in text


def test_a_run_without_scores_is_named_beside_those_that_have_some(make_run):
    new, scored = make_run("new", full=False), make_run("scored")
    assert "new has neither." in Page(report([new, scored], Selection())).words
    shutil.copytree(scored / "evaluations", new / "evaluations")
    words = Page(report([new, scored], Selection())).words
    assert "new has neither; its checkpoints were evaluated, see below." in words
    assert "scored has neither" not in words


def test_runs_of_one_name_are_told_apart(make_run, tmp_path):
    runs = [make_run("run", folder=tmp_path / "a"), make_run("run", folder=tmp_path / "b")]
    words = Page(report([*runs, runs[0]], Selection())).words  # the third is the first again
    assert f"{tmp_path / 'a' / 'run'}, {tmp_path / 'b' / 'run'}" in words


def test_a_run_that_has_just_begun(make_run):
    run = make_run("new", full=False)
    shutil.rmtree(run / "logs")
    page = Page(report([run], Selection()))
    assert page.ids == {"summary", "config"}


def test_all_that_comes_from_files_is_escaped(make_run):
    bad = "<script>alert(1)</script>\"'<img src=x onerror=y>"
    run = make_run("demo")
    (run / "music_validate.md").write_text(f"| {bad} | b |\n|---|---|\n| {bad} | c |\n")
    log = run / "logs" / "version_3" / "metrics.csv"
    log.parent.mkdir()
    log.write_text(f'epoch,step,train/loss,"{bad.replace(chr(34), chr(34) * 2)}"\n0,1,1.0,2.0\n')
    (run / "config.yaml").write_text((run / "config.yaml").read_text() + f"# {bad}\n")
    folder = run / "predictions" / "<b>&"
    shutil.copytree(run / "samples" / "step_20", folder)
    page = Page(report([run], Selection()))
    assert "script" not in {tag for tag, _ in page.tags}
    assert not any("onerror" in attrs for _, attrs in page.tags)
    assert page.words.count(bad) == 3  # a heading and a cell of the table, the config
    assert "predictions/<b>&" in page.words


def test_a_report_is_bounded(make_run):
    run = make_run("demo")
    assert "sample tiny" in {attrs.get("class") for _, attrs in Page(report([run], Selection())).tags}
    with (run / "predictions" / "samples_seed_1" / "sample_00000.gif").open("ab") as file:
        file.truncate(LARGEST + 1)
    page = Page(report([run], Selection(Limits(samples=1, folders=1), metrics=["val/*", "train/*"], most_curves=1)))
    assert len(page.sources("audio")) == 1
    assert "Too large to be shown: sample_00000.gif" in page.words
    assert "samples/step_20" not in page.words
    assert sum("over the steps" in attrs.get("alt", "") for _, attrs in page.tags) == 1
    assert "1 more curves are left out" in page.words


def test_files_outside_of_a_root_are_not_shown(make_run, tmp_path):
    run = make_run("demo")
    shutil.move(run / "samples", tmp_path / "elsewhere")
    (run / "samples").symlink_to(tmp_path / "elsewhere")
    assert [each.name for each in read_contents(run, "demo", Limits()).samples][1] == "samples/step_20"
    inside = read_contents(run, "demo", Limits(root=run.resolve()))
    assert [each.name for each in inside.samples] == ["predictions/samples_seed_1"]


def test_the_command_writes_one_file(make_run, tmp_path, monkeypatch, capsys):
    run, other = make_run("demo"), make_run("other")
    monkeypatch.chdir(tmp_path)
    main(["report", str(run)])
    assert Page((run / "report.html").read_text()).ids
    assert re.search(r"Wrote .*demo/report.html, \d+ KiB", capsys.readouterr().out)
    main(["report", str(run), str(other), "--samples", "0", "--metrics", "val/*"])
    page = Page((tmp_path / "report.html").read_text())
    assert not page.sources("audio")
    assert "demo: config.yaml" in page.words
    main(["report", str(run), "--out", "mine.html"])
    assert (tmp_path / "mine.html").is_file()


@pytest.mark.parametrize(
    ("words", "spoil", "message"),
    [
        (["gone"], None, "gone: no such folder; give the folder of a run"),
        (["run"], lambda run: (run / "config.yaml").unlink(), "config.yaml: no such file; give the folder of a run"),
        (["run"], lambda run: (run / "manifest.json").write_text("{"), "manifest.json: damaged"),
        (
            ["run"],
            lambda run: (run / "logs" / "version_0" / "metrics.csv").write_text("a,b\n1,2\n"),
            "metrics.csv: damaged, or no CSV log",
        ),
        (["run", "--samples", "-1"], None, "--samples must not be negative"),
        (["run", "--serve", "--port", "65536"], None, "--port must be a number from 0 to 65535, not 65536"),
        (["run", "gone", "--serve"], None, "--serve shows one folder of runs"),
        (["gone", "--serve"], None, "gone: no such folder; give a folder of runs"),
        (["run", "--out", "no/report.html"], None, "--out no/report.html: could not write the file (No such file"),
    ],
)
def test_one_error_says_what_is_wrong(make_run, tmp_path, monkeypatch, capsys, words, spoil, message):
    monkeypatch.chdir(tmp_path)
    run = make_run("run")
    if spoil:
        spoil(run)
    with pytest.raises(SystemExit):
        main(["report", *words])
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(Path().rglob("*.html"))
