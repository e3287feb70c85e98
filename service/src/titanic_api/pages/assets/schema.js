// Reads JSON Schemas as OpenAPI 3.1 uses them: follows references, says a type in words, makes an example.

const DEEPEST_EXAMPLE = 6;

/**
 * Follow a reference inside the document ("#/components/…"), as often as needed.
 * @param {Object} api the whole document
 * @param {Object|undefined} node
 */
export function resolve(api, node) {
  let found = node;
  let said; // what stands beside a reference is said of this place
  for (let step = 0; found?.$ref && step < 20; step += 1) {
    said ??= found.description;
    found = found.$ref.replace(/^#\//, "").split("/")
      .map((part) => decodeURIComponent(part).replaceAll("~1", "/").replaceAll("~0", "~"))
      .reduce((at, part) => at?.[part], api);
  }
  return said === undefined ? found ?? {} : { ...found, description: said };
}

/** The last part of a reference: the schema's name, or null for a schema written in place. */
export const referenceName = (node) => node?.$ref?.split("/").at(-1) ?? null;

const shown = (value) => JSON.stringify(value);

function limitsOf(schema) {
  const says = [];
  const from = schema.minimum ?? schema.exclusiveMinimum;
  const to = schema.maximum ?? schema.exclusiveMaximum;
  if (from !== undefined && to !== undefined) says.push(`${from} to ${to}`);
  else if (from !== undefined) says.push(schema.minimum === undefined ? `more than ${from}` : `at least ${from}`);
  else if (to !== undefined) says.push(schema.maximum === undefined ? `less than ${to}` : `at most ${to}`);
  const [least, most] = [schema.minLength, schema.maxLength];
  if (least !== undefined && most !== undefined) says.push(`${least} to ${most} characters`);
  else if (most !== undefined) says.push(`at most ${most} characters`);
  else if (least !== undefined) says.push(`at least ${least} characters`);
  if (schema.pattern) says.push(`matches ${schema.pattern}`);
  return says;
}

/** A schema's type and limits in words: "integer, 1 to 3", "number or null, 0 to 150". */
export function typeWords(api, node) {
  if (node === true || node === undefined) return "anything";
  const name = referenceName(node);
  const schema = resolve(api, node);
  if (schema.const !== undefined) return shown(schema.const);
  if (schema.enum) return schema.enum.map(shown).join(", ");
  const choices = schema.oneOf ?? schema.anyOf;
  if (choices && !schema.type) return choices.map((choice) => typeWords(api, choice)).join(" or ");
  if (schema.type === "array") return `array of ${referenceName(schema.items) ?? typeWords(api, schema.items)}`;
  if (name && (schema.type === "object" || schema.properties)) return name;
  const types = [schema.type ?? (schema.properties ? "object" : "anything")].flat().join(" or ");
  const format = schema.format ? ` (${schema.format})` : "";
  const standard = schema.default === undefined ? [] : [`${shown(schema.default)} unless given`];
  return [`${types}${format}`, ...limitsOf(schema), ...standard].join(", ");
}

function madeUp(api, schema, depth) {
  const type = [schema.type ?? (schema.properties ? "object" : "string")].flat()[0];
  if (type === "object") {
    return Object.fromEntries(Object.entries(schema.properties ?? {})
      .map(([name, property]) => [name, exampleOf(api, property, depth + 1)]));
  }
  if (type === "array") return depth < DEEPEST_EXAMPLE ? [exampleOf(api, schema.items, depth + 1)] : [];
  if (type === "integer" || type === "number") return schema.minimum ?? 0;
  if (type === "boolean") return true;
  return type === "null" ? null : "text";
}

/** An example of a schema: its own if it has one, else made from its types. */
export function exampleOf(api, node, depth = 0) {
  const schema = resolve(api, node);
  for (const given of [schema.example, schema.examples?.[0], schema.const, schema.default, schema.enum?.[0]]) {
    if (given !== undefined) return given;
  }
  if (depth > DEEPEST_EXAMPLE) return null;
  const choice = (schema.allOf ?? schema.oneOf ?? schema.anyOf)?.[0];
  return choice && !schema.type ? exampleOf(api, choice, depth + 1) : madeUp(api, schema, depth);
}

/** The example of a media type object: its own first, else its schema's; undefined if there is neither. */
export function mediaExample(api, media) {
  if (media?.example !== undefined) return media.example;
  const first = Object.values(media?.examples ?? {})[0];
  const value = resolve(api, first).value;
  if (value !== undefined) return value;
  return media?.schema ? exampleOf(api, media.schema) : undefined;
}

/** The example of a parameter, or undefined if the document gives none. */
export function parameterExample(api, parameter) {
  const schema = resolve(api, parameter.schema);
  const first = resolve(api, Object.values(parameter.examples ?? {})[0]).value;
  return parameter.example ?? first ?? schema.example ?? schema.examples?.[0];
}
