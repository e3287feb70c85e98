// The passengers page: keeps the address, the controls, the table and the plots in step with the API.

import { ApiProblem, getJson } from "./api.js";
import { figures } from "./charts.js";
import { byId, drawing, element, problemNotice } from "./dom.js";
import { count, passengers, share } from "./format.js";
import { pager } from "./pager.js";
import { isNarrowed, nextSort, peoplePath, readState, stateQuery, withoutFilters } from "./state.js";
import { peopleTable } from "./table.js";
import { tally } from "./statistics.js";

const TYPING_PAUSE_MILLISECONDS = 250;
/** The plots need everyone: beyond this the download would hurt a phone more than the plots help. */
const MOST_PLOTTED = 20_000;
const CONTROLS = ["q", "survived", "passengerClass", "sex", "size"];

let state = readState(location.search);
let loading = new AbortController();
let typing = 0;
/** Whether the newest history entry is a search still being typed, to be replaced and not added to. */
let searchIsOpen = false;

const table = peopleTable((column) => change({ sort: nextSort(state.sort, column), page: 1 }));
const pagers = ["pager-top", "pager-bottom"].map((id) => pager(byId(id), turnPage));

/** Take over a change, note it in the history, and load. */
function change(changes, { replace = false } = {}) {
  clearTimeout(typing);
  // A search typed a moment ago is taken along, so that a filter chosen at once does not wipe it.
  state = { ...state, q: byId("q").value.trim(), ...changes };
  const url = `${location.pathname}${stateQuery(state)}`;
  if (replace) history.replaceState(null, "", url);
  else history.pushState(null, "", url);
  showControls();
  return load();
}

function turnPage(page, event) {
  change({ page });
  const results = byId("passengers");
  // A click by keyboard has no detail: its focus must not leave the screen.
  if (event.detail > 0 && results.getBoundingClientRect().top < 0) results.scrollIntoView({ block: "start" });
}

function clearFilters() {
  searchIsOpen = false;
  byId("passengers-title").focus();
  change(withoutFilters(state));
}

function showControls() {
  for (const name of CONTROLS) {
    const control = byId(name);
    // Trimmed: a space just typed between two names must stay.
    if (control.value.trim() !== String(state[name])) control.value = String(state[name]);
  }
  byId("clear").hidden = !isNarrowed(state);
  const path = peoplePath(state);
  byId("request").setAttribute("href", path);
  byId("request-text").textContent = `GET /${path}`;
}

function emptyNotice() {
  if (!isNarrowed(state)) {
    return element("div", { class: "notice" }, element("p", { class: "notice-title" }, "No passengers yet"),
      element("p", {}, "Add the first with POST /people; the ", element("a", { href: "docs" }, "API reference"), " shows how."));
  }
  return element("div", { class: "notice" }, element("p", { class: "notice-title" }, "No passenger fits"),
    element("p", {}, state.q ? `No name contains “${state.q}” under these filters.` : "No one fits these filters together."),
    element("button", { type: "button", class: "button", onclick: clearFilters }, "Clear search and filters"));
}

function countSentence(total, shown) {
  if (!total) return "0 passengers";
  const first = (state.page - 1) * state.size + 1;
  return shown === total ? passengers(total) : `${count(first)}–${count(first + shown - 1)} of ${passengers(total)}`;
}

function showPeople(people, total) {
  byId("problem").replaceChildren();
  byId("count").textContent = countSentence(total, people.length);
  table.show(people, state.sort);
  const content = people.length ? table.node : emptyNotice();
  // The table is not put in anew: that would take the focus from the button that was just pressed.
  if (byId("results").firstChild !== content) byId("results").replaceChildren(content);
  showPagers(Math.max(1, Math.ceil(total / state.size)), people.length > 0);
}

function showPagers(pages, filled) {
  for (const each of pagers) each.show(state.page, pages);
  for (const id of ["pager-top", "pager-bottom"]) byId(id).hidden = pages < 2;
  byId("size-field").hidden = !filled;
}

function showProblem(error) {
  byId("count").textContent = "";
  byId("results").replaceChildren();
  showPagers(1, false);
  const detail = error instanceof ApiProblem ? error.detail : String(error);
  const refused = error.status >= 400 && error.status < 500 && error.status !== 429;
  byId("problem").replaceChildren(problemNotice(
    refused ? "The API refuses this search" : "The passengers cannot be shown just now", detail, retry));
  if (!(error instanceof ApiProblem)) throw error;
}

function retry() {
  byId("passengers-title").focus();
  load();
  if (!byId("plots-grid").hasChildNodes()) loadPlots();
}

/** Fetch the page of the table that the state asks for; a newer request stops an older one. */
async function load() {
  loading.abort();
  loading = new AbortController();
  const { signal } = loading;
  const results = byId("results");
  results.setAttribute("aria-busy", "true");
  try {
    const { body, total } = await getJson(peoplePath(state), signal);
    const known = total ?? body.length;
    const last = Math.max(1, Math.ceil(known / state.size));
    if (state.page > last) return await change({ page: last }, { replace: true });
    showPeople(body, known);
  } catch (error) {
    if (signal.aborted) return undefined;
    showProblem(error);
  }
  results.removeAttribute("aria-busy");
  return undefined;
}

/** The sentence under the title, and one bar for everyone. */
function showBalance(people) {
  const all = tally("All", people);
  byId("lead").replaceChildren(`${passengers(all.total)} on record. `,
    element("strong", {}, `${count(all.survived)} survived`), `, ${count(all.died)} died.`);
  const part = 100 * (all.survived / Math.max(1, all.total));
  byId("balance").replaceChildren(drawing("svg", {
    viewBox: "0 0 100 1", preserveAspectRatio: "none", role: "img", class: "balance-bar",
    "aria-label": `${share(all.survived, all.total)} survived`,
  }, drawing("rect", { class: "died", width: 100, height: 1 }), drawing("rect", { class: "survived", width: part, height: 1 })));
  byId("balance").hidden = !all.total;
}

function retryPlots() {
  byId("plots-title").focus();
  loadPlots();
}

async function loadPlots() {
  const [grid, problem] = [byId("plots-grid"), byId("plots-problem")];
  try {
    const { total } = await getJson("people?limit=1");
    if (total > MOST_PLOTTED) {
      problem.replaceChildren(element("p", { class: "notice" },
        `${passengers(total)} are on record. The plots need all of them at once and are drawn for up to ${count(MOST_PLOTTED)}.`));
      return;
    }
    const { body } = await getJson("people");
    showBalance(body);
    problem.replaceChildren();
    grid.replaceChildren(...(body.length ? figures(body) : [element("p", { class: "notice" }, "There is no one to plot yet.")]));
  } catch (error) {
    const detail = error instanceof ApiProblem ? error.detail : String(error);
    problem.replaceChildren(problemNotice("The plots cannot be drawn just now", detail, retryPlots));
    if (!(error instanceof ApiProblem)) throw error;
  }
}

function search() {
  const q = byId("q").value.trim();
  if (q === state.q) return;
  const replace = searchIsOpen;
  searchIsOpen = true;
  change({ q, page: 1 }, { replace });
}

function listen() {
  byId("q").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(search, TYPING_PAUSE_MILLISECONDS);
  });
  byId("q").addEventListener("blur", () => { searchIsOpen = false; });
  for (const name of ["survived", "passengerClass", "sex", "size"]) {
    byId(name).addEventListener("change", ({ target }) =>
      change({ [name]: name === "size" ? Number(target.value) : target.value, page: 1 }));
  }
  byId("filters").addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(typing);
    search();
  });
  byId("clear").addEventListener("click", clearFilters);
  window.addEventListener("popstate", () => {
    clearTimeout(typing);
    searchIsOpen = false;
    const earlier = readState(location.search);
    // A jump to #plots is in the history too, and changes nothing here.
    if (stateQuery(earlier) === stateQuery(state)) return;
    state = earlier;
    showControls();
    load();
  });
}

listen();
showControls();
byId("passengers").hidden = false;
byId("plots").hidden = false;
await load();
await loadPlots();
if (location.hash === "#plots") byId("plots").scrollIntoView();
