"""P3, P4: an upgrade of the collection drops no request, nor does the first rotation after it.

Of full measure: `make test-full` says which commit is upgraded from.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ansible_collections.whitestar.deploy.plugins.plugin_utils.names import RENAMED

from tests.end_to_end.switch.site import ROOT, copy_service, new_site
from tests.end_to_end.switch.test_rotation import DATABASE, LOGINS
from tests.end_to_end.switch.test_switch import (
    AT_MOST_SECONDS,
    REQUESTS_PER_SECOND,
    STEADY_SECONDS,
    no_request_was_dropped,
    under_load,
)

if TYPE_CHECKING:
    from tests.cluster import Cluster
    from tests.engine import Engine

FROM = os.environ.get("TESTS_UPGRADE_FROM", "")
OLD_NAMES = {new: old for old, new in RENAMED.items()}


@pytest.fixture(scope="session")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as it was at the commit that is upgraded from."""
    place = tmp_path_factory.mktemp("before")
    archive = subprocess.run(["git", "archive", FROM], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "--extract", "--directory", place], input=archive, check=True)
    return place


@pytest.mark.upgrade
def test_an_upgrade_of_the_collection_drops_no_request(before: Path, engine: Engine | Cluster | None) -> None:
    with new_site(engine) as site:
        settings, context = dict(site.settings), site.context
        site.project_root = site.inventory_root = before
        site.context = copy_service(site.context.parent / "before", before)
        site.settings = {OLD_NAMES.get(name, name): value for name, value in settings.items()}
        site.settings["titanic_image_context"] = str(site.context)
        site.succeed()
        first, people = site.release(), site.rows()

        site.project_root, site.context = ROOT, context
        site.change_service("# another release, whatever has become of the service since")
        with under_load(site.ways(), rate=REQUESTS_PER_SECOND, seconds=AT_MOST_SECONDS) as reports:
            time.sleep(STEADY_SECONDS)
            site.settings["titanic_image_context"] = settings["titanic_image_context"]
            upgraded = site.succeed()
            assert "titanic_target_state_directory: this setting is called titanic_state_directory now" in upgraded
            second = site.release()
            site.inventory_root, site.settings = ROOT, settings
            again = site.succeed()
            site.succeed("--tags", "rollback")
            assert site.administer(LOGINS) == "titanic_app"
            if site.provider != "kubernetes":
                site.succeed(*DATABASE)
                assert site.administer(LOGINS) == "titanic_app_a"
            time.sleep(STEADY_SECONDS)
        written = sum(no_request_was_dropped(way, report) for way, report in reports.items())

        assert second != first
        assert site.changed(again) == 0, again
        assert site.release() == first
        assert site.rows() == people + written
        assert [(entry["number"], entry["outcome"], entry["release"]) for entry in site.ledger()][:3] == [
            (1, "succeeded", first),
            (2, "succeeded", second),
            (3, "succeeded", first),
        ]
