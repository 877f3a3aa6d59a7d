"""Fixtures of the fault tests: a deployment whose processes can be hit, and clients that only know its address."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.demo.scripted_llm import ScriptedLlm
from tests.cluster_process import Cluster
from tests.integration.contract.conversations import Conversations

LEASE_TTL_SECONDS = 2
DRAIN_SECONDS = 4


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two web servers, two runners, a Redis of their own and HAProxy in front."""
    limits = {"OH_LEASE_TTL_SECONDS": str(LEASE_TTL_SECONDS), "OH_DRAIN_SECONDS": str(DRAIN_SECONDS)}
    with Cluster(tmp_path_factory.mktemp("cluster"), limits) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def http(cluster: Cluster) -> Iterator[httpx.Client]:
    """Requests through the balancer."""
    with httpx.Client(base_url=cluster.url, timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture
def conversation(http: httpx.Client, scripted_llm: ScriptedLlm, tmp_path: Path) -> Conversations:
    """`conversation()` creates one and returns its handle."""
    return Conversations(http, scripted_llm, str(tmp_path / "project"))
