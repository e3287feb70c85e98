// Turns an OpenAPI document into a flat list of operations, and an operation into a curl command.

import { mediaExample, parameterExample, resolve } from "./schema.js";

const METHODS = ["get", "post", "put", "patch", "delete", "head", "options", "trace"];
const OTHER = "Other";

/**
 * @typedef {Object} Operation
 * @property {string} id unique in the page, fit for an address's fragment
 * @property {string} method in capitals
 * @property {string} path
 * @property {string} group the first tag
 * @property {Object} definition the operation object
 * @property {Object[]} parameters of the path and of the operation, references followed
 * @property {Object<string, *>} pathExamples a value for each parameter in the path that the document has an example of
 */

/** @returns {Operation[]} in the document's order, the methods of a path in their usual order */
export function operationsOf(api) {
  return Object.entries(api.paths ?? {}).flatMap(([path, item]) => {
    const answered = exampleAnswer(api, item);
    return METHODS.filter((method) => item[method]).map((method) => {
      const parameters = mergedParameters(api, item.parameters, item[method].parameters);
      return {
        id: `${method}${path.replace(/[^A-Za-z0-9]+/g, "-")}`.replace(/-$/, ""),
        method: method.toUpperCase(),
        path,
        group: item[method].tags?.[0] ?? OTHER,
        definition: item[method],
        parameters,
        pathExamples: Object.fromEntries(parameters.filter((parameter) => parameter.in === "path")
          .map((parameter) => [parameter.name, parameterExample(api, parameter) ?? answered[parameter.name]])),
      };
    });
  });
}

/** The example of what GET answers on a path: what it is called there is an example of the path's parameter too. */
function exampleAnswer(api, item) {
  const media = Object.values(resolve(api, item.get?.responses?.["200"]).content ?? {})[0];
  const example = media ? mediaExample(api, media) : null;
  return example !== null && typeof example === "object" ? example : {};
}

/** The operation's own parameters win over the path's, by place and name (OpenAPI 3.1, "Path Item Object"). */
function mergedParameters(api, ofPath = [], ofOperation = []) {
  const merged = new Map();
  for (const parameter of [...ofPath, ...ofOperation].map((each) => resolve(api, each))) {
    merged.set(`${parameter.in} ${parameter.name}`, parameter);
  }
  return [...merged.values()];
}

/** @returns {Map<string, Operation[]>} by group: the document's tags first, in their order, then the rest */
export function grouped(api, operations) {
  const groups = new Map((api.tags ?? []).map((tag) => [tag.name, []]));
  for (const operation of operations) {
    groups.set(operation.group, [...(groups.get(operation.group) ?? []), operation]);
  }
  return new Map([...groups].filter(([, members]) => members.length));
}

/** The path with its parameters filled in; one without a value stays as it is written, in braces. */
export function filledPath(path, values) {
  return path.replace(/\{([^}]+)\}/g, (whole, name) => (values[name] ? encodeURIComponent(values[name]) : whole));
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/**
 * A command that can be pasted into a POSIX shell.
 * @param {Object} api
 * @param {Operation} operation
 * @param {string} root the API's address without a last slash
 */
export function curl(api, operation, root) {
  const parts = ["curl"];
  if (operation.method === "HEAD") parts.push("--head");
  else if (operation.method !== "GET") parts.push(`-X ${operation.method}`);
  parts.push(quoted(root + filledPath(operation.path, operation.pathExamples)));
  const [type, media] = Object.entries(resolve(api, operation.definition.requestBody).content ?? {})[0] ?? [];
  if (type) {
    parts.push(`\\\n  -H ${quoted(`Content-Type: ${type}`)}`);
    const example = mediaExample(api, media);
    if (example !== undefined) parts.push(`\\\n  -d ${quoted(JSON.stringify(example))}`);
  }
  return parts.join(" ");
}
