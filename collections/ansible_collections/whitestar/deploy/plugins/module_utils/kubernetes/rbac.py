# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployer has to be allowed in a namespace: asked for before a run, given to the account made for it."""

from __future__ import annotations

from typing import Any

# Group of the API, kinds as it names them, verbs.
RIGHTS = (
    ("", "configmaps secrets services serviceaccounts", "get list create patch update delete"),
    ("", "limitranges resourcequotas", "get list create patch update delete"),
    ("", "persistentvolumeclaims", "get list delete"),
    ("", "pods", "get list create delete"),
    ("", "pods/log events", "get list"),
    # kubectl asks for these by GET where it speaks WebSocket, as it does from 1.31 on.
    ("", "pods/exec pods/attach pods/portforward", "get create"),
    ("apps", "deployments statefulsets", "get list create patch delete"),
    ("apps", "replicasets", "get list"),
    ("batch", "jobs", "get list create patch delete"),
    ("autoscaling", "horizontalpodautoscalers", "get list create patch delete"),
    ("policy", "poddisruptionbudgets", "get list create patch delete"),
    ("networking.k8s.io", "ingresses networkpolicies", "get list create patch delete"),
    ("coordination.k8s.io", "leases", "get create update delete"),
)
# What only some choices need: a larger volume, another Ingress or Gateway, another database, secrets out of a store.
CHOICES = (
    ("", "persistentvolumeclaims", "patch"),
    ("gateway.networking.k8s.io", "httproutes", "get list create patch delete"),
    ("postgresql.cnpg.io", "clusters", "get list create patch delete"),
    ("external-secrets.io", "secretstores externalsecrets", "get list create patch delete"),
)
# To look at the namespace itself. To change its labels would be to lift what it refuses.
NAMESPACE = ("", "namespaces", "get")


def rules() -> list[dict[str, Any]]:
    """The rights as rules of a Role."""
    return [
        {"apiGroups": [group], "resources": kinds.split(), "verbs": verbs.split()}
        for group, kinds, verbs in (*RIGHTS, *CHOICES, NAMESPACE)
    ]


def missing_permissions(granted: list[dict[str, Any]]) -> list[str]:
    """The rights that rules as a SelfSubjectRulesReview lists them do not give, each in words."""
    found = []
    for group, kinds, verbs in RIGHTS:
        for kind in kinds.split():
            verbs_lacking = [verb for verb in verbs.split() if not _allowed(granted, group, kind, verb)]
            if verbs_lacking:
                found.append(f"{'/'.join(verbs_lacking)} {kind}")
    return found


def _allowed(granted: list[dict[str, Any]], group: str, kind: str, verb: str) -> bool:
    return any(
        {group, "*"} & set(rule.get("apiGroups", []))
        and {kind, "*", f"*/{kind.partition('/')[2]}"} & set(rule.get("resources", []))
        and {verb, "*"} & set(rule.get("verbs", []))
        and not rule.get("resourceNames")
        for rule in granted
    )
