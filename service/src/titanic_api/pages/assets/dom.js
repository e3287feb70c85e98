// Makes elements from data. Text always becomes a text node, so nothing a user wrote can become markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Set attributes (true = present, false/null/undefined = absent; `on…` functions become listeners) and append children.
 * @param {Element} node
 * @param {Object<string, *>} attributes
 * @param {Array<Node|string|number|null|undefined>} children
 */
function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== "") node.append(child instanceof Node ? child : String(child));
  }
  return node;
}

/** Make an HTML element: `element("p", {class: "lead"}, "text", otherElement)`. */
export const element = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);

/** Make an SVG element in the same way. */
export const drawing = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

/** The element with this id; an error names the id if the page has none. */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

/**
 * A table that turns into cards on a phone. The roles are written out because `display: block` would take them away.
 * @param {string} caption
 * @param {Array<string|Node>} heads one per column
 * @param {Array<Array<string|number|Node>>} rows cells in the order of `heads`; the first cell is the row's header
 * @param {string} className
 */
export function dataTable(caption, heads, rows, className = "") {
  const label = (index) => (heads[index] instanceof Node ? heads[index].textContent : heads[index]);
  const cell = (content, index) => element(index ? "td" : "th", {
    role: index ? "cell" : "rowheader", scope: index ? null : "row", "data-label": label(index),
  }, content);
  return element("table", { class: className, role: "table" },
    element("caption", { class: "visually-hidden" }, caption),
    element("thead", { role: "rowgroup" }, element("tr", { role: "row" },
      heads.map((head) => element("th", { scope: "col", role: "columnheader" }, head)))),
    element("tbody", { role: "rowgroup" }, rows.map((row) => element("tr", { role: "row" }, row.map(cell)))));
}

/** A message that something could not be loaded, with a button that tries again. */
export function problemNotice(title, detail, retry) {
  return element("div", { class: "notice notice-problem", role: "alert" },
    element("p", { class: "notice-title" }, title),
    detail ? element("p", {}, detail) : null,
    retry ? element("button", { type: "button", class: "button", onclick: retry }, "Try again") : null);
}
