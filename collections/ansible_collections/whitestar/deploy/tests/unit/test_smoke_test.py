# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a release says of its traffic, read from its metrics."""

from __future__ import annotations

from ansible_collections.whitestar.deploy.plugins.module_utils.release.smoke_test import Traffic

METRICS = """# HELP titanic_http_requests_total Requests answered
# TYPE titanic_http_requests_total counter
titanic_http_requests_total{method="GET",route="/people",status="200"} 30.0
titanic_http_requests_total{method="GET",route="/people/{uuid}",status="500"} 2.0
titanic_http_requests_total{method="GET",route="/readyz",status="503"} 900.0
titanic_http_errors_total{method="GET",route="/people/{uuid}"} 2.0
titanic_http_errors_total{method="GET",route="/readyz"} 900.0
titanic_http_request_duration_seconds_bucket{le="0.005",method="GET",route="/people"} 30.0
titanic_http_request_duration_seconds_sum{method="GET",route="/people"} 1.5
titanic_http_request_duration_seconds_sum{method="GET",route="/readyz"} 9.0
process_cpu_seconds_total 4.2
"""
PROBES = {"alive": "/healthz", "ready": "/readyz", "metrics": "/metrics"}


def test_probes_are_nobody_s_traffic() -> None:
    assert Traffic.of(METRICS, PROBES) == Traffic(requests=32, errors=2, seconds=1.5)


def test_what_came_since_is_a_difference() -> None:
    assert Traffic.of(METRICS, PROBES) - Traffic(requests=12, errors=2, seconds=1.0) == Traffic(20, 0, 0.5)
    assert Traffic.of("", PROBES) == Traffic()


def test_each_probe_is_left_out() -> None:
    routes = {**PROBES, "aliases": ["/health"]}
    every = [f'titanic_http_requests_total{{route="{route}"}} 1' for route in (*PROBES.values(), "/health", "/people")]
    assert Traffic.of("\n".join(every), routes) == Traffic(requests=1)
    assert Traffic.of("\n".join(every), {"ready": "/people"}) == Traffic(requests=4)


def test_of_a_service_without_metrics_nothing_is_known() -> None:
    assert Traffic.at(["127.0.0.1:9"], {"ready": "/readyz"}) == Traffic()
