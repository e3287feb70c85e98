// A form that sends a GET operation for real and shows what came back.

import { address } from "./api.js";
import { element } from "./dom.js";
import { filledPath } from "./operations.js";
import { resolve } from "./schema.js";

const MOST_SHOWN = 8_000;
const SHOWN_HEADERS = ["content-type", "etag", "link", "location", "retry-after", "x-request-id", "x-total-count"];

function choicesOf(schema) {
  if (schema.type === "boolean") return ["true", "false"];
  return schema.enum?.map(String);
}

function control(api, operation, parameter) {
  const schema = resolve(api, parameter.schema);
  const id = `${operation.id}-${parameter.name}`;
  const choices = choicesOf(schema);
  const required = parameter.required === true;
  const input = choices
    ? element("select", { id, name: parameter.name, required },
      element("option", { value: "" }, ""), choices.map((choice) => element("option", {}, choice)))
    : element("input", { id, name: parameter.name, required, autocomplete: "off", spellcheck: "false",
      value: operation.pathExamples[parameter.name] });
  return element("div", { class: "field" }, element("label", { for: id }, parameter.name), input);
}

function pretty(text, type) {
  let shown = text;
  if (/json/.test(type)) {
    try {
      shown = JSON.stringify(JSON.parse(text), null, 2);
    } catch {
      // Not JSON after all: shown as it came.
    }
  }
  return shown.length > MOST_SHOWN ? `${shown.slice(0, MOST_SHOWN)}\n… ${shown.length - MOST_SHOWN} more characters` : shown;
}

function requestPath(operation, form) {
  const values = Object.fromEntries([...new FormData(form)].filter(([, value]) => value !== ""));
  const query = new URLSearchParams(operation.parameters
    .filter((parameter) => parameter.in === "query" && values[parameter.name] !== undefined)
    .map((parameter) => [parameter.name, values[parameter.name]]));
  return filledPath(operation.path, values).replace(/^\//, "") + (query.size ? `?${query}` : "");
}

async function send(operation, form, output) {
  const path = requestPath(operation, form);
  output.replaceChildren(element("p", { role: "status" }, `GET /${path} …`));
  const begin = performance.now();
  try {
    const response = await fetch(address(path || "./"), { headers: { Accept: "application/json, */*;q=0.5" } });
    const text = await response.text();
    const headers = SHOWN_HEADERS.filter((name) => response.headers.has(name))
      .map((name) => `${name}: ${response.headers.get(name)}`).join("\n");
    output.replaceChildren(
      element("p", { role: "status" }, `GET /${path}: `, element("strong", {}, String(response.status)),
        ` in ${Math.round(performance.now() - begin)} ms`),
      element("pre", { tabindex: "0", role: "region", "aria-label": "Answer" },
        element("code", {}, `${headers}\n\n${pretty(text, response.headers.get("content-type") ?? "")}`)));
  } catch {
    output.replaceChildren(element("p", { role: "status" }, `GET /${path}: the service could not be reached.`));
  }
}

/** @param {Object} api @param {import("./operations.js").Operation} operation a GET */
export function tryIt(api, operation) {
  const asked = operation.parameters.filter((parameter) => parameter.in === "path" || parameter.in === "query");
  const output = element("div", { class: "answer" });
  const form = element("form", { class: "filters", "aria-label": `Try GET ${operation.path}` },
    asked.map((parameter) => control(api, operation, parameter)),
    element("button", { type: "submit", class: "button" }, "Send"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(operation, form, output);
  });
  return element("details", { class: "try" }, element("summary", {}, "Try it"), form, output);
}
