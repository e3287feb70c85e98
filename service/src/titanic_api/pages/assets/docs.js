// The API's reference: draws every operation and schema of /openapi.json.

import { address, ApiProblem, getJson } from "./api.js";
import { codeBlock } from "./copy.js";
import { byId, dataTable, element, problemNotice } from "./dom.js";
import { curl, grouped, operationsOf } from "./operations.js";
import { mediaExample, referenceName, resolve, typeWords } from "./schema.js";
import { tryIt } from "./tryit.js";

/** Text with `code` in backticks, as paragraphs; the rest of Markdown is shown as it is written. */
function prose(text = "") {
  return text.split(/\n\s*\n/).filter((paragraph) => paragraph.trim()).map((paragraph) =>
    element("p", {}, paragraph.split("`").map((part, index) => (index % 2 ? element("code", {}, part) : part))));
}

const inline = (text) => (text ? element("span", {}, text.split("`")
  .map((part, index) => (index % 2 ? element("code", {}, part) : part))) : "");
const code = (text) => element("code", {}, text);
const schemaId = (name) => `schema-${name}`;

/** A schema in words, as a link if it is one of those that the page shows below. */
function typeCell(api, node) {
  const schema = resolve(api, node);
  const name = referenceName(node) ?? referenceName(schema.items);
  const words = typeWords(api, node);
  return name && api.components?.schemas?.[name] && words.includes(name)
    ? element("a", { href: `#${schemaId(name)}` }, words) : element("span", {}, words);
}

function parametersTable(api, operation) {
  if (!operation.parameters.length) return null;
  const rows = operation.parameters.map((parameter) => [
    element("span", {}, code(parameter.name), parameter.required ? element("span", { class: "required" }, " required") : null),
    parameter.in, typeCell(api, parameter.schema), inline(parameter.description),
  ]);
  return [element("h4", {}, "Parameters"),
    dataTable(`Parameters of ${operation.method} ${operation.path}`, ["Name", "In", "Type", "Meaning"], rows, "cards reference-table parameters-table")];
}

function requestBody(api, operation) {
  const body = resolve(api, operation.definition.requestBody);
  const media = Object.entries(body.content ?? {});
  if (!media.length) return null;
  return [element("h4", {}, "Request body"), prose(body.description),
    media.map(([type, definition]) => {
      const example = mediaExample(api, definition);
      return [element("p", {}, code(type), ": ", typeCell(api, definition.schema)),
        example === undefined ? null
          : codeBlock(JSON.stringify(example, null, 2), `example body of ${operation.method} ${operation.path}, ${type}`)];
    })];
}

function bodyCell(api, response) {
  const media = Object.entries(response.content ?? {});
  if (!media.length) return "none";
  return element("span", {}, media.flatMap(([type, { schema }], index) =>
    [index ? ", " : null, schema ? typeCell(api, schema) : null, " ", code(type)]));
}

const headersCell = (names) => (names.length
  ? element("span", {}, names.map((name, index) => [index ? ", " : null, code(name)])) : "");

function responsesTable(api, operation) {
  const responses = Object.entries(operation.definition.responses ?? {})
    .map(([status, response]) => [status, resolve(api, response)]);
  const rows = responses.map(([status, response]) => [
    element("span", { class: `status status-${status.charAt(0)}` }, status), inline(response.description),
    bodyCell(api, response),
    headersCell(Object.keys(response.headers ?? {})),
  ]);
  return [element("h4", {}, "Answers"),
    dataTable(`Answers of ${operation.method} ${operation.path}`, ["Status", "Meaning", "Body", "Headers"], rows, "cards reference-table answers-table"),
    responses.map(([status, response]) => responseExample(api, operation, status, response))];
}

function responseExample(api, operation, status, response) {
  const [type, media] = Object.entries(response.content ?? {}).find(([name]) => /json/.test(name)) ?? [];
  // Every error has the same shape, shown once under the schemas; one written for this operation is shown here.
  const own = media?.example !== undefined || media?.examples !== undefined;
  if (!type || (status.charAt(0) !== "2" && !own)) return null;
  const example = mediaExample(api, media);
  if (example === undefined) return null;
  return element("details", {}, element("summary", {}, `Example of ${status}`),
    codeBlock(JSON.stringify(example, null, 2), `example of ${status} from ${operation.method} ${operation.path}`));
}

/** Who may call an operation: an empty alternative means that nobody needs to say who they are (OpenAPI 3.1, "security"). */
function accessLine(api, { security = api.security ?? [] }) {
  const schemes = security.flatMap((alternative) => Object.keys(alternative))
    .map((name) => resolve(api, api.components?.securitySchemes?.[name]));
  if (!schemes.length) return null;
  const names = schemes.map(({ type, scheme, name }) => (type === "http" ? `Authorization: ${scheme}` : `${type} ${name ?? ""}`));
  const optional = security.some((alternative) => !Object.keys(alternative).length);
  return element("p", { class: "note" }, optional ? "May need " : "Needs ", code(names.join(", ")),
    optional ? ", if the service is set up to ask for it." : ".");
}

function operationArticle(api, operation, root) {
  const { method, path, definition } = operation;
  return element("article", { class: "operation", id: operation.id, "aria-labelledby": `${operation.id}-title` },
    element("h3", { id: `${operation.id}-title`, class: "operation-title" },
      element("span", { class: `method method-${method.toLowerCase()}` }, method), " ", element("span", { class: "path" }, path)),
    definition.summary ? element("p", { class: "summary" }, definition.summary) : null,
    prose(definition.description), accessLine(api, definition),
    codeBlock(curl(api, operation, root), `curl command for ${method} ${path}`),
    parametersTable(api, operation), requestBody(api, operation), responsesTable(api, operation),
    method === "GET" ? tryIt(api, operation) : null);
}

function schemaArticle(api, name, node) {
  const schema = resolve(api, node);
  const properties = Object.entries(schema.properties ?? {});
  const rows = properties.map(([property, definition]) => [
    element("span", {}, code(property), schema.required?.includes(property) ? element("span", { class: "required" }, " required") : null),
    typeCell(api, definition), inline(resolve(api, definition).description),
  ]);
  return element("article", { class: "operation", id: schemaId(name) },
    element("h3", {}, name), prose(schema.description),
    rows.length ? dataTable(`Fields of ${name}`, ["Field", "Type", "Meaning"], rows, "cards reference-table")
      : element("p", {}, typeWords(api, schema)));
}

function section(id, title, ...children) {
  return element("section", { "aria-labelledby": id }, element("h2", { id }, title), children);
}

function contentsOf(groups, schemas) {
  const link = (href, ...content) => element("li", {}, element("a", { href }, content));
  const part = (title, ...items) => [element("p", { class: "contents-title" }, title), element("ul", {}, items)];
  return [...[...groups].flatMap(([name, operations]) => part(name, operations.map((operation) =>
    link(`#${operation.id}`, element("span", { class: `method method-${operation.method.toLowerCase()}` }, operation.method),
      " ", element("span", { class: "path" }, operation.path))))),
  ...(schemas.length ? part("Schemas", schemas.map(([name]) => link(`#${schemaId(name)}`, name))) : [])];
}

function show(api) {
  const root = address("./").href.replace(/\/$/, "");
  const groups = grouped(api, operationsOf(api));
  const schemas = Object.entries(api.components?.schemas ?? {});
  const described = Object.fromEntries((api.tags ?? []).map((tag) => [tag.name, tag.description]));
  byId("api-title").replaceChildren(api.info?.title ?? "API reference",
    element("span", { class: "version" }, ` ${api.info?.version ?? ""}`));
  byId("api-description").replaceChildren(...prose(api.info?.summary), ...prose(api.info?.description));
  byId("contents-list").replaceChildren(...contentsOf(groups, schemas));
  byId("operations").replaceChildren(
    ...[...groups].map(([name, operations], index) => section(`group-${index}`, name, prose(described[name]),
      operations.map((operation) => operationArticle(api, operation, root)))),
    ...(schemas.length ? [section("schemas", "Schemas", schemas.map(([name, node]) => schemaArticle(api, name, node)))] : []));
  byId("reference").hidden = false;
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (location.hash.length > 1 && target) target.scrollIntoView();
}

async function load() {
  try {
    const { body } = await getJson("openapi.json");
    byId("problem").replaceChildren();
    show(body);
  } catch (error) {
    const detail = error instanceof ApiProblem ? error.detail : String(error);
    byId("problem").replaceChildren(problemNotice("The reference cannot be shown just now", detail, load));
    if (!(error instanceof ApiProblem)) throw error;
  }
}

// Open beside the text on a wide screen, closed above it on a phone.
byId("contents").open = matchMedia("(min-width: 60rem)").matches;
await load();
