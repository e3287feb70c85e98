# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The objects as a Helm chart: the same texts, with a handful of values in the places where they were found."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import Object
from ansible_collections.whitestar.deploy.plugins.plugin_utils.manifest_export import (
    HEADER,
    JOB,
    ExportError,
    as_document,
    as_yaml,
    find,
    release_of,
)

# The first draft that every Helm 3 and 4 knows.
DRAFT = "http://json-schema.org/draft-07/schema#"
SCALER = "HorizontalPodAutoscaler"
MARK = re.compile(r"MARK\d+MARK")
TLS = """{{- with .Values.tlsSecret }}
tls: [{hosts: [{{ toJson $.Values.hostname }}], secretName: {{ toJson . }}}]
{{- end }}"""
SCALED = "gt (int .Values.replicas.max) (int .Values.replicas.min)"
NUMBER = f"{{{{- if not ({SCALED}) }}}}\nreplicas: {{{{ .Values.replicas.min }}}}\n{{{{- end }}}}"
# Settings that belong to the workload; the others are for who installs the chart.
FIXED = re.compile(r"TITANIC_(DATABASE_.+|BIND|METRICS_DIRECTORY|KEEPALIVE_SECONDS|RELEASE|[A-Z_]+_FILE)")
FIXED_IN_SCHEMA = "^TITANIC_(DATABASE_.+|BIND|METRICS_DIRECTORY|KEEPALIVE_SECONDS|RELEASE|[A-Z_]+_FILE)$"
QUANTITY = {"type": "string", "pattern": "^[0-9]+([.][0-9]+)?([EPTGMk]i?|m)?$"}
AMOUNTS = {"type": "object", "additionalProperties": {"type": ["string", "integer"]}}
RESOURCES = {"type": "object", "additionalProperties": False, "properties": {"requests": AMOUNTS, "limits": AMOUNTS}}
NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"}
REFERENCE = {"type": "string", "pattern": "^[^ ]+$"}
COUNT = {"type": "integer", "minimum": 1}
HOST = {"type": "string", "format": "hostname", "minLength": 1}

HELPERS = """{{/* What the settings of a release end with: its name where nothing was changed, otherwise a hash. */}}
{{- define "titanic.release" -}}
{{- $chosen := pick .Values "environment" "image" | toJson -}}
{{- if eq $chosen (fromJson RELEASE_VALUES | toJson) -}}RELEASE_NAME
{{- else -}}{{ printf "%s %s" RELEASE_QUOTED $chosen | sha256sum | trunc 12 }}{{- end -}}
{{- end }}
{{/* What the name of the Job ends with, which cannot be changed: another Job has another name. */}}
{{- define "titanic.job" -}}
{{- $chosen := pick .Values "image" "databaseImage" "secrets" | toJson -}}
{{- if eq $chosen (fromJson JOB_VALUES | toJson) -}}JOB_NAME
{{- else -}}{{ printf "%s %s" JOB_QUOTED $chosen | sha256sum | trunc 12 }}{{- end -}}
{{- end }}
"""
NOTES = """Titanic API {{ include "titanic.release" . }}, asked as {{ .Values.hostname | default "titanic-api" }}.
{{- range $key, $name := .Values.secrets }}
{{- if not (lookup "v1" "Secret" $.Release.Namespace $name) }}
There is no Secret {{ $name }} in {{ $.Release.Namespace }} yet: pods wait for it. values.yaml says what is in it.
{{- end }}
{{- end }}
"""


@dataclass
class Marks:
    """What stands for an expression of a template until the object that it is in has become text."""

    texts: dict[str, str] = field(default_factory=dict)

    def mark(self, text: str) -> str:
        """A word for an expression; one of several lines takes the place of the word's whole line."""
        word = f"MARK{len(self.texts)}MARK"
        self.texts[word] = text
        return word

    def value(self, path: str) -> str:
        """A word for one of the values, of any type."""
        return self.mark(f"{{{{ toJson .Values.{path} }}}}")

    def filled(self, text: str) -> str:
        """A text with the expressions in their places, in which nothing else is one."""
        lines = [self._line(line) for line in text.replace("{{", '{{ "{{" }}').splitlines()]
        return "\n".join([*lines, ""])

    def _line(self, line: str) -> str:
        for word in MARK.findall(line):
            text = self.texts[word]
            if "\n" in text:
                indent = " " * (len(line) - len(line.lstrip()))
                return "\n".join(f"{indent}{part}" for part in text.splitlines())
            line = line.replace(word, text)
        return line


@dataclass(frozen=True)
class Value:
    """One of the chart's values: where it is, what it is when nothing is said, what it may be."""

    path: str
    meaning: str
    default: Any
    schema: Mapping[str, Any]


@dataclass
class Chart:
    """The objects of each stage, in which values are found and replaced one after the other."""

    stages: dict[str, list[Object]]
    secrets: Mapping[str, Mapping[str, str]]
    replicas: int
    marks: Marks = field(default_factory=Marks)
    values: list[Value] = field(default_factory=list)

    def add(self, path: str, meaning: str, default: Any, schema: Mapping[str, Any]) -> str:
        """Note a value; the word that stands for it."""
        self.values.append(Value(path, meaning, default, schema))
        return self.marks.value(path)

    def object(self, kind: str) -> Object:
        """The one object of a kind that there must be. Raises ExportError."""
        found = find([thing for objects in self.stages.values() for thing in objects], kind)
        if found is None:
            raise ExportError(f"there is no {kind} among the objects")
        return found

    def has(self, kind: str) -> bool:
        """Whether there is an object of a kind."""
        return any(thing["kind"] == kind for objects in self.stages.values() for thing in objects)


def helm_chart(
    stages: Mapping[str, Sequence[Object]], secrets: Mapping[str, Mapping[str, str]], replicas: int, version: str
) -> dict[str, str]:
    """The files of the chart by their paths.

    ``stages`` is what :func:`manifest_export.exported` gave, ``secrets`` what is in each Secret. ``replicas`` is how
    many pods there are at least, ``version`` that of the chart (SemVer 2). Raises ExportError.
    """
    release = release_of(stages)
    # A namespace is there before what is installed into it.
    own = {
        name: [deepcopy(thing) for thing in objects if thing["kind"] != "Namespace"] for name, objects in stages.items()
    }
    chart = Chart(own, secrets, replicas)
    name = str(chart.object("Job")["metadata"]["name"]).removeprefix(f"{JOB}-")
    for step in (_images, _environment, _replicas, _front, _storage, _resources, _secrets):
        step(chart)
    suffix = chart.marks.mark('{{ include "titanic.job" . }}')
    chart.object("Job")["metadata"]["name"] = f"{JOB}-{suffix}"
    _name_release(chart, release)
    defaults = {value.path: value.default for value in chart.values}
    facts = {
        "apiVersion": "v2",
        "name": "titanic",
        "description": "The Titanic API with its PostgreSQL",
        "type": "application",
        "version": version,
        "appVersion": release,
        "kubeVersion": ">=1.30.0-0",
    }
    files = {f"templates/{stage}.yaml": _template(chart, objects) for stage, objects in chart.stages.items()}
    return files | {
        "Chart.yaml": as_document(facts),
        "values.yaml": _values(chart.values),
        "values.schema.json": json.dumps(_schema(chart.values), indent=2) + "\n",
        "templates/_helpers.tpl": _helpers(defaults, release, name),
        "templates/NOTES.txt": NOTES,
    }


def _container(thing: Object) -> Object:
    found: list[Object] = thing["spec"]["template"]["spec"]["containers"]
    return found[0]


@dataclass(frozen=True)
class Server:
    """Where an object that is the database's server says what can be chosen: what holds it, and under which key."""

    image: tuple[Object, str]
    resources: Object
    size: tuple[Object, str]
    storage_class: tuple[Object, str]


def _server(chart: Chart) -> Server | None:
    """The server, if it is ours."""
    if chart.has("StatefulSet"):
        container = _container(chart.object("StatefulSet"))
        claim = chart.object("StatefulSet")["spec"]["volumeClaimTemplates"][0]["spec"]
        size = (claim["resources"]["requests"], "storage")
        return Server((container, "image"), container, size, (claim, "storageClassName"))
    if chart.has("Cluster"):
        spec = chart.object("Cluster")["spec"]
        return Server((spec, "imageName"), spec, (spec["storage"], "size"), (spec["storage"], "storageClass"))
    return None


def _images(chart: Chart) -> None:
    api, job = _container(chart.object("Deployment")), chart.object("Job")["spec"]["template"]["spec"]
    words = {api["image"]: chart.add("image", "The image of the API, by its digest.", api["image"], REFERENCE)}
    if server := _server(chart):
        place, key = server.image
        words[place[key]] = chart.add("databaseImage", "The image of PostgreSQL.", place[key], REFERENCE)
        place[key] = words[place[key]]
    for container in (api, *job["initContainers"], *job["containers"]):
        container["image"] = words[container["image"]]


def _environment(chart: Chart) -> None:
    data = chart.object("ConfigMap")["data"]
    given = {key: data.pop(key) for key in sorted(data) if not FIXED.fullmatch(key)}
    names = {"pattern": "^TITANIC_[A-Z_]+$", "not": {"pattern": FIXED_IN_SCHEMA}}
    schema = {"type": "object", "propertyNames": names, "additionalProperties": {"type": "string"}}
    meaning = "Settings of the service, as texts; those of the database and of secrets are not for changing here."
    chart.values.append(Value("environment", meaning, given, schema))
    lines = "{{- range $name, $value := .Values.environment }}\n{{ $name }}: {{ toJson $value }}\n{{- end }}"
    data["environment"] = chart.marks.mark(lines)


def _replicas(chart: Chart) -> None:
    deployment = chart.object("Deployment")
    least = chart.add("replicas.min", "Pods at least.", chart.replicas, COUNT)
    if not chart.has(SCALER):
        deployment["spec"]["replicas"] = least
        return
    scaler = chart.object(SCALER)["spec"]
    meaning = "Pods at most; where that is no more, nothing scales them."
    scaler["maxReplicas"] = chart.add("replicas.max", meaning, scaler["maxReplicas"], COUNT)
    scaler["minReplicas"] = least
    deployment["spec"] = {"replicas": chart.marks.mark(NUMBER)} | deployment["spec"]


def _front(chart: Chart) -> None:
    if chart.has("HTTPRoute"):
        route = chart.object("HTTPRoute")["spec"]
        (host,) = route["hostnames"]
        route["hostnames"] = [chart.add("hostname", "The name that the API is asked by.", host, HOST)]
    if not chart.has("Ingress"):
        return
    spec = chart.object("Ingress")["spec"]
    (rule,) = spec["rules"]
    rule["host"] = chart.add("hostname", "The name that the API is asked by.", rule["host"], HOST)
    given = spec.pop("ingressClassName", "")
    meaning = "The class of the Ingress; that of the cluster where it is empty."
    chart.values.append(Value("ingressClass", meaning, given, {"type": "string"}))
    secret = spec.pop("tls", [{"secretName": ""}])[0]["secretName"]
    meaning = "The Secret with the certificate of the name; plain HTTP where it is empty."
    chart.values.append(Value("tlsSecret", meaning, secret, {"type": "string"}))
    chosen = _optional("ingressClassName", "ingressClass")
    optional = {"ingressClassName": chart.marks.mark(chosen), "tls": chart.marks.mark(TLS)}
    chart.object("Ingress")["spec"] = optional | spec


def _optional(key: str, path: str) -> str:
    """A line that is there where the value is not empty."""
    return f"{{{{- with .Values.{path} }}}}\n{key}: {{{{ toJson . }}}}\n{{{{- end }}}}"


def _storage(chart: Chart) -> None:
    server = _server(chart)
    if server is None:
        return
    place, key = server.size
    place[key] = chart.add("storage.size", "The volume of the database.", place[key], QUANTITY)
    place, key = server.storage_class
    meaning = "Its storage class; that of the cluster where it is empty."
    chart.values.append(Value("storage.className", meaning, place.pop(key, ""), {"type": "string"}))
    place[key] = chart.marks.mark(_optional(key, "storage.className"))


def _resources(chart: Chart) -> None:
    server = _server(chart)
    places = {"api": _container(chart.object("Deployment"))} | ({"database": server.resources} if server else {})
    for name, place in places.items():
        meaning = f"What a pod of the {name} asks for, and may use."
        place["resources"] = chart.add(f"resources.{name}", meaning, place["resources"], RESOURCES)
    if chart.has("ResourceQuota"):
        quota = chart.object("ResourceQuota")["spec"]
        quota["hard"] = chart.add("quota", "What the namespace may use.", quota["hard"], AMOUNTS)


def _secrets(chart: Chart) -> None:
    """The Secrets that pods read by their names, so that others can be named."""
    kinds = [kind for kind in ("Deployment", "StatefulSet", "Job") if chart.has(kind)]
    volumes = [volume for kind in kinds for volume in chart.object(kind)["spec"]["template"]["spec"]["volumes"]]
    places = [(volume["secret"], "secretName") for volume in volumes if "secret" in volume]
    for volume in volumes:
        places += [(source["secret"], "name") for source in volume.get("projected", {}).get("sources", [])]
    words: dict[str, str] = {}
    for place, key in places:
        name = str(place[key])
        if name not in words:
            meaning = f"The Secret with {', '.join(chart.secrets[name])}."
            words[name] = chart.add(f"secrets.{name.removeprefix('titanic-')}", meaning, name, NAME)
        place[key] = words[name]


def _name_release(chart: Chart, release: str) -> None:
    """Have every text that names the release name the one that the values make."""
    whole = chart.marks.mark('{{ include "titanic.release" . | quote }}')
    part = chart.marks.mark('{{ include "titanic.release" . }}')

    def change(text: str) -> str:
        return whole if text == release else text.replace(release, part)

    chart.stages = {name: _changed(objects, change) for name, objects in chart.stages.items()}


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    """A value with every text in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_changed(item, change) for item in value]
    if isinstance(value, dict):
        return {key: _changed(item, change) for key, item in value.items()}
    return value


def _template(chart: Chart, objects: Sequence[Object]) -> str:
    """A file of the chart's templates."""
    return f"{HEADER}\n" + "".join(_documents(chart, objects))


def _documents(chart: Chart, objects: Sequence[Object]) -> Iterator[str]:
    for thing in objects:
        text = f"---\n{chart.marks.filled(as_yaml(thing))}"
        yield f"{{{{- if {SCALED} }}}}\n{text}{{{{- end }}}}\n" if thing["kind"] == SCALER else text


def _values(values: Sequence[Value]) -> str:
    """``values.yaml``, each value below what it means."""
    lines, group = [HEADER], ""
    for value in values:
        first, _, rest = value.path.partition(".")
        indent = "  " if rest else ""
        if rest and first != group:
            lines.append(f"{first}:")
        group = first
        lines.append(f"{indent}# {value.meaning}")
        lines += [f"{indent}{line}" for line in as_yaml({rest or first: value.default}).splitlines()]
    return "\n".join([*lines, ""])


def _schema(values: Sequence[Value]) -> dict[str, Any]:
    """``values.schema.json``: every value, and no other."""
    # Which Helm hands to every chart that is part of another one.
    properties: dict[str, Any] = {"global": {"type": "object"}}
    for value in values:
        first, _, rest = value.path.partition(".")
        schema = {"description": value.meaning, **value.schema}
        if not rest:
            properties[first] = schema
            continue
        group = properties.setdefault(first, {"type": "object", "additionalProperties": False, "properties": {}})
        group["properties"][rest] = schema
    return {"$schema": DRAFT, "type": "object", "additionalProperties": False, "properties": properties}


def _helpers(defaults: Mapping[str, Any], release: str, job: str) -> str:
    """The names that follow from values, and are those of the objects where no value was changed."""
    secrets = {path.partition(".")[2]: name for path, name in defaults.items() if path.startswith("secrets.")}
    chosen = {"environment": defaults["environment"], "image": defaults["image"]}
    done = {key: defaults[key] for key in ("image", "databaseImage") if key in defaults} | {"secrets": secrets}
    texts = {
        "RELEASE_VALUES": _quoted(json.dumps(chosen, ensure_ascii=False)),
        "RELEASE_NAME": release,
        "RELEASE_QUOTED": _quoted(release),
        "JOB_VALUES": _quoted(json.dumps(done, ensure_ascii=False)),
        "JOB_NAME": job,
        "JOB_QUOTED": _quoted(job),
    }
    return re.sub("|".join(texts), lambda found: texts[found.group()], HELPERS)


def _quoted(text: str) -> str:
    """A text as a Go template writes one."""
    return json.dumps(text, ensure_ascii=False)
