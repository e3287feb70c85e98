// The table of passengers: its columns, the buttons that sort it, and its rows.

import { element } from "./dom.js";
import { capital, CLASS_NAMES, count, money } from "./format.js";
import { address } from "./api.js";
import { SORTABLE } from "./state.js";

const unknown = () => element("span", { class: "muted" }, "unknown");
const number = (value, shown) => element("data", { value }, shown);

const COLUMNS = [
  { key: "name", label: "Name", cell: ({ name, uuid }) => element("bdi", {}, element("a", { href: address(`people/${encodeURIComponent(uuid)}`) }, name)) },
  { key: "survived", label: "Fate", cell: ({ survived }) =>
    element("span", { class: survived ? "fate fate-survived" : "fate fate-died" }, survived ? "Survived" : "Died") },
  { key: "passengerClass", label: "Class", cell: ({ passengerClass }) => CLASS_NAMES[passengerClass] ?? String(passengerClass) },
  { key: "sex", label: "Sex", cell: ({ sex }) => capital(sex) },
  { key: "age", label: "Age", numeric: true, cell: ({ age }) => (age === null ? unknown() : number(age, age)) },
  { key: "siblingsOrSpousesAboard", label: "Siblings, spouses", numeric: true,
    cell: ({ siblingsOrSpousesAboard }) => number(siblingsOrSpousesAboard, count(siblingsOrSpousesAboard)) },
  { key: "parentsOrChildrenAboard", label: "Parents, children", numeric: true,
    cell: ({ parentsOrChildrenAboard }) => number(parentsOrChildrenAboard, count(parentsOrChildrenAboard)) },
  { key: "fare", label: "Fare,\u00a0£", numeric: true, cell: ({ fare }) => number(fare, money(fare)) },
];

function orderOf(sort, key) {
  if (sort === key) return "ascending";
  return sort === `-${key}` ? "descending" : null;
}

function row(person) {
  return element("tr", { role: "row" }, COLUMNS.map((column, index) => element(index ? "td" : "th", {
    role: index ? "cell" : "rowheader", scope: index ? null : "row", "data-label": column.label,
    class: `cell-${column.key}${column.numeric ? " numeric" : ""}`,
  }, column.cell(person))));
}

/**
 * Make the table.
 * @param {(column: string) => void} onSort called with a column's key when its button is pressed
 * @returns {{node: HTMLElement, show: (people: Object[], sort: string) => void}}
 */
export function peopleTable(onSort) {
  const sorter = ({ key, label }) => element("button", { type: "button", class: "sort", onclick: () => onSort(key) }, label);
  const heads = COLUMNS.map((column) => element("th",
    { scope: "col", role: "columnheader", class: column.numeric ? "numeric" : null, "data-column": column.key },
    SORTABLE.includes(column.key) ? sorter(column) : column.label));
  const body = element("tbody", { role: "rowgroup" });
  const node = element("table", { class: "people cards", role: "table" },
    element("caption", { class: "visually-hidden" }, "Passengers. The buttons in the column heads sort the table."),
    element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, heads)), body);
  const show = (people, sort) => {
    heads.forEach((head, index) => {
      const order = orderOf(sort, COLUMNS[index].key);
      if (order) head.setAttribute("aria-sort", order);
      else head.removeAttribute("aria-sort");
    });
    body.replaceChildren(...people.map(row));
  };
  return { node, show };
}
