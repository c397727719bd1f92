"""What the documents say is there, is there; what is there, they say."""

import re
from pathlib import Path

import pytest
import typer.main
from prometheus_client import REGISTRY
from pydantic import BaseModel
from starlette.routing import Route

from bridge import claims, dead, envelope, errors, metrics
from bridge.cli.app import app as cli
from bridge.ingress import Limits, make_app, problem
from bridge.ingress.lanes import Lanes
from bridge.registry import load_services
from bridge.service import _File
from bridge.settings import PASSED_THROUGH, PREFIX, Settings
from bridge.worker import make_admin

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
TABLES = {
    key: type(field.default)
    for key, field in _File.model_fields.items()
    if isinstance(field.default, BaseModel)
}
NO_EFFECT = {"worker.dialect"}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def rows(page: str, section: str = "") -> list[list[str]]:
    """The cells of every row of the tables in a page, or in one section of it, without heads."""
    text = (REFERENCE / f"{page}.md").read_text(encoding="utf-8")
    if section:
        text = re.split(r"^## ", text.partition(f"## {section}\n")[2], flags=re.MULTILINE)[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    ruled = [n for n, line in enumerate(lines) if set(line) <= set("|- ")]
    heads = {*ruled, *(n - 1 for n in ruled)}
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for n, line in enumerate(lines)
        if n not in heads
    ]


def unquoted(cell: str) -> str:
    return cell.replace("`", "")


def column(page: str, section: str = "", number: int = 0) -> list[str]:
    return [unquoted(row[number]) for row in rows(page, section)]


def test_every_setting_of_a_process_has_its_row_with_variable_and_default() -> None:
    found = {unquoted(row[0]): row[1:3] for row in rows("settings", "Of a process")}

    assert list(found) == list(Settings.model_fields)
    for field, (variable, default) in found.items():
        if field == "kafka_options":
            assert unquoted(variable).startswith(PASSED_THROUGH)
        else:
            assert unquoted(variable) == PREFIX + field.upper()
            assert_default(default, Settings.model_fields[field].default)


def test_every_key_of_service_toml_has_its_row_with_default_range_and_effect() -> None:
    found = {unquoted(row[0]): row for row in rows("settings", "Of a service: service.toml")}
    wanted = {key: field for key, field in _File.model_fields.items() if key not in TABLES} | {
        f"{table}.{field.alias or key}": field
        for table, model in TABLES.items()
        for key, field in model.model_fields.items()
    }

    assert set(found) == set(wanted)
    for key, field in wanted.items():
        _, default, bounds, effect, _ = found[key]
        if key != "worker.group":
            assert_default(default, field.default)
        for limit in (getattr(each, "le", None) for each in field.metadata):
            assert limit is None or f"{limit:g}" in bounds or str(limit) in bounds
        assert effect == ("none yet" if key in NO_EFFECT else "yes"), key


def assert_default(cell: str, default: object) -> None:
    text = unquoted(cell).strip('"')
    if isinstance(default, bool):
        assert text == str(default).lower()
    elif isinstance(default, int | float):
        assert float(text) == default
    else:
        assert text == (default or ("empty" if default == "" else "none"))


def test_what_is_said_to_have_no_effect_is_read_nowhere() -> None:
    sources = [
        path.read_text(encoding="utf-8")
        for path in (ROOT / "bridge").rglob("*.py")
        if path.name != "service.py"
    ]

    for key in NO_EFFECT:
        used = re.compile(rf"\.{key.rpartition('.')[2]}\b")
        assert not any(used.search(source) for source in sources), key


CLASSES = [
    each
    for each in vars(errors).values()
    if isinstance(each, type) and issubclass(each, errors.BridgeError)
]


@pytest.mark.parametrize("error", CLASSES, ids=lambda each: each.__name__)
def test_every_error_has_its_row(error: type[errors.BridgeError]) -> None:
    found = [row for row in rows("errors") if unquoted(row[0]) == error.code]

    assert found
    for _, status, outcome, retryable, *_ in (row for row in found if len(row) > 3):
        assert (status, outcome) == (str(error.status), error.outcome)
        assert retryable.startswith("yes" if error.retryable else "no") or "yes" in retryable


def test_every_code_of_a_worker_has_its_row() -> None:
    assert problem.BROKEN | {"refused", "expired", "cancelled"} <= set(
        column("errors", "Of a worker")
    )


def test_no_row_tells_of_a_code_that_is_not_there() -> None:
    known = {each.code for each in CLASSES} | problem.BROKEN | {"expired", "cancelled"}

    assert set(column("errors")) - known == {"*the handler's own*"}


def test_every_metric_has_its_row_and_no_other() -> None:
    assert metrics.render()  # it is loaded
    ours = {
        metric.name + ("_total" if metric.type == "counter" else ""): metric
        for metric in REGISTRY.collect()
        if metric.name.startswith("bridge_")
    }
    found = {unquoted(row[0]): row for row in rows("metrics")}

    assert set(found) == set(ours)
    assert {each: row[1] for each, row in found.items()} == {
        each: metric.type for each, metric in ours.items()
    }


def test_every_header_of_the_wire_has_its_row_and_no_other() -> None:
    constants = {
        text
        for constant, value in vars(envelope).items()
        if constant.isupper() and not constant.startswith("_")
        for text in (value if isinstance(value, tuple) else (value,))
        if isinstance(text, str)
    }

    assert set(column("wire", "Headers")) == constants
    assert "bridge-request-id" in constants


def test_every_header_of_a_claim_has_its_row_and_no_other() -> None:
    entry = claims.Entry(
        kind=claims.Kind.HEAL,
        key="0" * 64,
        request_id="r",
        lane=0,
        fingerprint="0" * 64,
        service="s",
        rules_ms=1,
        heal_id="h",
    )

    headers = [header for header, _ in claims.format_entry(entry).headers]

    assert column("wire", "Claims") == headers


def test_every_header_of_a_dead_letter_has_its_row_and_no_other() -> None:
    verdict = dead.Verdict(reason="r", error="e", attempts=1)
    record = envelope.Record(topic="t", key=None, value=None)

    made = dead.make_dead(record, verdict, topic="s.dead", group="g", worker="w")

    found = [each for cell in column("wire", "Dead letters") for each in cell.split(", ")]

    assert found == [header for header, _ in made.headers]


def test_every_event_has_its_row_and_no_other() -> None:
    found = {unquoted(row[0]): row[2] == "yes" for row in rows("wire", "Events")}

    assert found == {event.value: event.is_last for event in envelope.Event}


def test_every_route_has_its_row_and_no_other() -> None:
    services = load_services(ROOT / "schemas")
    lanes = Lanes({}, services, (0,), "docs", lambda: 0)
    app = make_app(services, {}, lanes, Limits(), chance=lambda: 0)
    routes = {
        (method, route.path)
        for route in app.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }

    found = {(unquoted(row[0]), unquoted(row[1])) for row in rows("http", "Routes")}

    assert found == routes


def test_every_route_of_a_workers_port_has_its_row_and_no_other() -> None:
    routes = {
        (method, route.path)
        for route in make_admin({}).routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }

    assert {(unquoted(row[0]), unquoted(row[1])) for row in rows("admin")} == routes


def commands() -> dict[str, set[str]]:
    """Every command with its options."""
    found = {}
    open_groups = [("kbridge", typer.main.get_command(cli))]
    while open_groups:
        path, command = open_groups.pop()
        inner = getattr(command, "commands", None)
        if inner is None:
            found[path] = {
                option
                for parameter in command.params
                for option in parameter.opts
                if option.startswith("--") and option != "--help"
            }
        else:
            open_groups += [(f"{path} {each}", one) for each, one in inner.items()]
    return found


def test_every_command_and_option_has_its_row_and_no_other() -> None:
    text = (REFERENCE / "cli.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## (kbridge .+)$", text, re.MULTILINE)

    assert {each: set(column("cli", each)) for each in sections} == commands()


def test_every_target_of_make_has_its_row_and_no_other() -> None:
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)

    assert phony is not None
    assert {each.removeprefix("make ") for each in column("cli", "make")} == set(phony[1].split())


def test_every_file_of_the_package_is_on_the_map_and_no_other() -> None:
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    drawn = re.findall(r"^\| `(bridge/[^`]+)` \|", text, re.MULTILINE)
    files = {
        name(path)
        for path in (ROOT / "bridge").rglob("*")
        if path.is_file() and path.suffix in {".py", ".txt", ".properties"}
    }

    assert sorted(drawn) == sorted(files)


def test_the_names_on_the_map_are_in_their_files() -> None:
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    missing = [
        (path, each)
        for path, names in re.findall(r"^\| `(bridge/[^`]+)` \|.*\| (.*) \|$", text, re.MULTILINE)
        for each in re.findall(r"`([^`]+)`", names)
        if not re.search(rf"\b{each}\b", (ROOT / path).read_text(encoding="utf-8"))
    ]

    assert missing == []


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [
        target
        for target in re.findall(r"\]\(([^)\s]+)\)", text)
        if not re.match(r"[a-z]+:", target)
    ]

    broken = []
    for link in links:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or not page.exists():
            continue
        seen.add(page)
        links = re.findall(r"\]\(([^)#\s:]+\.md)", page.read_text(encoding="utf-8"))
        waiting += [(page.parent / link).resolve() for link in links]

    assert [name(page) for page in PAGES if page not in seen] == []


def test_the_readme_names_the_command_that_tests() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")

    assert re.search(r"^## Tests\n```sh\nmake test\b", text, re.MULTILINE)
