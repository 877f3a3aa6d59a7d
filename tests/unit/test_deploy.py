"""What `deploy/` says agrees with itself and with the server."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.metrics import Metrics
from service.settings import Settings
from service.settings.environment import environment_names
from tests.server_process import REPOSITORY

DEPLOY = REPOSITORY / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yaml"
DASHBOARD = DEPLOY / "grafana" / "fanout.json"
MANIFESTS: list[dict[str, Any]] = list(yaml.safe_load_all((DEPLOY / "kubernetes" / "fanout.yaml").read_text("utf-8")))
DEPLOYMENTS = [each for each in MANIFESTS if each["kind"] == "Deployment"]
VARIABLES = {variable for name, field in Settings.model_fields.items() for variable in environment_names(name, field)}

NAME = re.compile(r"\bfanout_\w+")
SUFFIXES = re.compile(r"_(bucket|count|sum|total)$")


def counted() -> set[str]:
    """Every name under which Prometheus would store something."""
    return {family.name for family in Metrics().registry.collect()}


@pytest.mark.parametrize("path", [ALERTS, DASHBOARD], ids=lambda path: path.name)
def test_only_what_is_counted_is_asked_for(path: Any) -> None:
    """A renamed metric would silence an alert."""
    asked = {SUFFIXES.sub("", name) for name in NAME.findall(path.read_text("utf-8"))}
    assert asked
    assert asked <= counted()


def test_everything_counted_is_on_the_dashboard() -> None:
    """Or nobody looks at it."""
    shown = {SUFFIXES.sub("", name) for name in NAME.findall(DASHBOARD.read_text("utf-8"))}
    assert counted() <= shown


def test_every_alert_says_why_and_what_to_do() -> None:
    """Whoever is woken needs both."""
    for group in yaml.safe_load(ALERTS.read_text("utf-8"))["groups"]:
        for rule in group["rules"]:
            assert rule["annotations"]["why"], rule["alert"]
            assert rule["annotations"]["do"], rule["alert"]
            assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]


def test_panels_have_numbers_of_their_own() -> None:
    """Grafana drops one of two panels with the same id."""
    ids = [panel["id"] for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"]]
    assert len(set(ids)) == len(ids)


SHARED = ("conversations_path", "bash_events_dir", "persistence_dir", "workspace_path", "conversation_worktree_root")


@pytest.mark.parametrize("path", ["compose.yaml", "kubernetes/fanout.yaml", "Dockerfile"])
def test_every_folder_that_processes_share_is_on_a_volume(path: str) -> None:
    """Or each container would have settings of its own, and lose them with itself."""
    text = (DEPLOY / path).read_text("utf-8")
    for name in SHARED:
        variables = "|".join(environment_names(name, Settings.model_fields[name]))
        assert re.search(rf"\b({variables})(: |=)(/data|/workspace)(/|\b)", text), name


def test_manifests_name_settings_that_exist() -> None:
    """A misspelt variable would be ignored in silence."""
    config = next(each for each in MANIFESTS if each["kind"] == "ConfigMap")
    given = set(config["data"])
    for deployment in DEPLOYMENTS:
        given |= {each["name"] for each in container(deployment)["env"]}
    assert {name.removesuffix("_0") for name in given} <= VARIABLES


def test_pods_are_given_the_time_to_drain() -> None:
    """The kubelet's SIGKILL must not come before a runner has handed over."""
    drain_seconds = float(next(each for each in MANIFESTS if each["kind"] == "ConfigMap")["data"]["OH_DRAIN_SECONDS"])
    for deployment in DEPLOYMENTS:
        assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= drain_seconds + 10


def test_manifests_refer_to_each_other() -> None:
    """Budgets, scalers, the service and the volume find what they name."""
    labels = [each["spec"]["template"]["metadata"]["labels"] for each in DEPLOYMENTS]
    names = {(each["kind"], each["metadata"]["name"]) for each in MANIFESTS}
    for each in MANIFESTS:
        spec = each.get("spec", {})
        if each["kind"] in ("Deployment", "PodDisruptionBudget"):
            assert spec["selector"]["matchLabels"] in labels
        if each["kind"] == "Service":
            assert spec["selector"] in labels
        if each["kind"] == "HorizontalPodAutoscaler":
            assert (spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"]) in names
    for deployment in DEPLOYMENTS:
        claim = deployment["spec"]["template"]["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"]
        assert ("PersistentVolumeClaim", claim) in names
        ports = {port["name"] for port in container(deployment)["ports"]}
        probes = [value for key, value in container(deployment).items() if key.endswith("Probe")]
        assert {(probe.get("httpGet") or probe["tcpSocket"])["port"] for probe in probes} <= ports


def container(deployment: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = deployment["spec"]["template"]["spec"]["containers"][0]
    return found


def checked(*command: str) -> str:
    """What a checker prints; fails with it when it finds something. Its program lies beside Python's."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / command[0]), *command[1:]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_compose_file_fits_the_specification() -> None:
    checked("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(DEPLOY / "compose.yaml"))


def test_manifests_fit_kubernetes() -> None:
    told = checked("kubernetes-validate", "--strict", str(DEPLOY / "kubernetes" / "fanout.yaml"))
    assert told.count(" passed for resource ") == len(MANIFESTS)


def test_dockerfile_has_no_known_mistake() -> None:
    checked("hadolint", str(DEPLOY / "Dockerfile"))
