"""The files of the page on JupyterHub: loaded by a real server, and held against what there is."""

import json
import re
import shutil
import tomllib

import httpx
import yaml
from compose_pydantic.models import ComposeSpecification
from sqlalchemy.engine import make_url
from typer.main import get_command

from kling_nb.cli import app
from kling_nb.config.keys import KEY_VARIABLES
from kling_nb.config.loading import load_settings
from kling_nb.config.settings import OPTIONS, PREFIX
from kling_nb.team.answers import PATH, SIGNATURE
from support.callbacks import SECRET, body_of, sign
from support.jupyter import Server
from support.paths import ROOT

FOLDER = ROOT / "docs" / "guide" / "jupyterhub"
CONFIG = FOLDER / "jupyter_server_config.py"
COMPOSE = yaml.safe_load((FOLDER / "docker-compose.yml").read_text(encoding="utf-8"))
ADA = {"JUPYTERHUB_USER": "ada", "JUPYTERHUB_SERVICE_PREFIX": "/user/ada/"}
#: Loads the file as Jupyter does, and says what kernels find.
LOADED = """
import json, sys
from traitlets.config.loader import PyFileConfigLoader
from kling_nb.config.loading import load_settings
PyFileConfigLoader(sys.argv[1]).load_config()
found = load_settings()
print(json.dumps([found.user, found.ledger, found.media, found.callback_url, found.notes]))
caps = ("budget", "user_daily", "team_daily", "team_total")
print(json.dumps([getattr(found, f"{name}_micros") for name in caps]))
"""


def loaded(house, **env):
    code, out, err = house.script(LOADED, CONFIG, **ADA, **env)
    assert (code, err) == (0, "")
    return [json.loads(line) for line in out.splitlines()]


def test_the_file_gives_kernels_the_user_the_ledger_the_store_and_the_caps(build):
    """What the hub itself has set stays; an address is named only where there is a secret for its calls."""
    house = build()
    house.unset("LEDGER", "MEDIA")
    address = "https://hub.example.org/user/ada/kling/callbacks/runflow"
    ledger, store = "postgresql://kling@db.example.org/kling", "s3://kling/clips"
    caps = [5_000_000, 20_000_000, 100_000_000, 2_000_000_000]
    assert loaded(house) == [["ada", ledger, store, None, []], caps]
    [[*_, callback, _], _] = loaded(house, KLING_NB_CALLBACK_SECRETS=SECRET)
    assert callback == address
    [[_, found, *_], [_, daily, *_]] = loaded(
        house, KLING_NB_LEDGER="postgresql://other/db", KLING_NB_USER_DAILY="1"
    )
    assert (found, daily) == ("postgresql://other/db", 1_000_000)


def test_a_server_below_a_hubs_address_loads_it_and_takes_calls(tmp_path, monkeypatch):
    """A real Jupyter server at /user/ada/, with the file in its configuration: off, unsigned, signed."""
    folder = tmp_path / "jupyter"
    folder.mkdir()
    shutil.copy(CONFIG, folder)
    base = {"ServerApp": {"base_url": ADA["JUPYTERHUB_SERVICE_PREFIX"]}}
    (folder / "jupyter_server_config.json").write_text(json.dumps(base))
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", str(folder))
    ours = {**ADA, "KLING_NB_CALLBACK_SECRETS": SECRET, "KLING_NB_LEDGER": str(tmp_path / "ledger.db")}
    server = Server(tmp_path, "lab", ours)
    try:
        assert server.base.endswith("/user/ada")
        url, raw = f"{server.base}/{PATH}", body_of("0192f0c1")
        assert httpx.post(url, content=raw, trust_env=False).status_code == 401
        signed = {SIGNATURE: sign(raw)}
        assert httpx.post(url, content=raw, headers=signed, trust_env=False).text == "No such run here.\n"
    finally:
        server.stop()


# -- ledger, store and worker -------------------------------------------------------------
def test_the_compose_file_is_one():
    """It is as the Compose specification has it, and the services and volumes that it names are there."""
    ComposeSpecification.model_validate(COMPOSE)
    services = COMPOSE["services"]
    for service in services.values():
        for name, needed in service.get("depends_on", {}).items():
            healthy = needed["condition"] == "service_healthy"
            assert "healthcheck" in services[name] or not healthy
        for volume in service.get("volumes", ()):
            assert volume.partition(":")[0] in COMPOSE["volumes"]


def test_the_worker_of_the_compose_file_is_ours(build):
    """Its command, options, settings, keys and extras are there, and its settings can be read."""
    worker = COMPOSE["services"]["worker"]
    program, name, *options = worker["command"]
    assert program == "kling-nb"
    command = get_command(app).commands[name]
    command.parse_args(command.context_class(command), list(options))
    environment = worker["environment"]
    own = {name: value for name, value in environment.items() if name.startswith(PREFIX)}
    assert {name.removeprefix(PREFIX).lower() for name in own} <= set(OPTIONS)
    assert {"PGPASSWORD", "RUNFLOW_API_KEY"} <= environment.keys() - own.keys()
    found = load_settings(environ=own, start=build().folder)
    ledger = make_url(found.ledger)
    database = COMPOSE["services"][ledger.host]["environment"]
    assert (ledger.username, ledger.database) == (database["POSTGRES_USER"], database["POSTGRES_DB"])
    assert f"store/{found.media.split('/')[2]}" == COMPOSE["services"]["bucket"]["entrypoint"][-1]
    assert worker["build"] == "."
    extras = re.search(r"kling-nb\[([\w,]+)\]", (FOLDER / "Dockerfile").read_text("utf-8"))[1].split(",")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(extras) <= set(project["optional-dependencies"])


def test_what_is_secret_stands_in_no_file():
    """Passwords and keys are taken from `.env`, each under a name that the file's head lists."""
    text = (FOLDER / "docker-compose.yml").read_text(encoding="utf-8")
    taken = set(re.findall(r"\$\{(\w+):\?\}", text))
    assert taken == set(re.findall(r"^#   (\w+)=\.\.\.$", text, re.MULTILINE))
    assert {name for name in taken if name.startswith("RUN")} <= {
        variable for names in KEY_VARIABLES.values() for variable in names
    }
