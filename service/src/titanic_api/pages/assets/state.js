// What the reader has asked for, as kept in the page's address and as sent to the API.

/** The fields that the API sorts by. */
export const SORTABLE = ["name", "survived", "passengerClass", "sex", "age", "fare"];
const CHOICES = {
  survived: ["true", "false"],
  passengerClass: ["1", "2", "3"],
  sex: ["female", "male", "other"],
};
const PAGE_SIZES = [10, 20, 50, 100];
const DEFAULTS = Object.freeze({ q: "", survived: "", passengerClass: "", sex: "", sort: "", page: 1, size: 20 });

/**
 * Read the state from an address's query; whatever is not understood falls back to its default.
 * @param {string} search such as "?q=kelly&page=2"
 */
export function readState(search) {
  const given = new URLSearchParams(search);
  const state = { ...DEFAULTS, q: (given.get("q") ?? "").trim() };
  for (const [name, choices] of Object.entries(CHOICES)) {
    if (choices.includes(given.get(name))) state[name] = given.get(name);
  }
  const sort = given.get("sort") ?? "";
  if (SORTABLE.includes(sort.replace(/^-/, ""))) state.sort = sort;
  const page = Number(given.get("page"));
  if (Number.isSafeInteger(page) && page >= 1 && page <= 1_000_000) state.page = page;
  const size = Number(given.get("size"));
  if (PAGE_SIZES.includes(size)) state.size = size;
  return state;
}

/** The address's query for a state: "" or "?…", without what is at its default. */
export function stateQuery(state) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) {
    if (value !== DEFAULTS[name]) query.set(name, String(value));
  }
  return query.size ? `?${query}` : "";
}

/** The API's path for a state: one page of /people. */
export function peoplePath(state) {
  const query = new URLSearchParams({ limit: String(state.size), offset: String((state.page - 1) * state.size) });
  for (const name of ["sort", "q", "survived", "passengerClass", "sex"]) {
    if (state[name]) query.set(name, state[name]);
  }
  return `people?${query}`;
}

/** Whether a search or a filter narrows the list. */
export const isNarrowed = (state) => Boolean(state.q || state.survived || state.passengerClass || state.sex);

/** The state with search and filters taken away; order and page size stay. */
export const withoutFilters = (state) => ({ ...DEFAULTS, sort: state.sort, size: state.size });

/** The order that the next press of a column's button asks for: ascending, descending, the data set's own. */
export function nextSort(sort, column) {
  if (sort === column) return `-${column}`;
  return sort === `-${column}` ? "" : column;
}
