// First, previous, next and last page. The buttons stay in the document, so that the focus stays where the reader put it.

import { element } from "./dom.js";
import { count } from "./format.js";

/**
 * Fill a nav with the pager's buttons.
 * @param {HTMLElement} nav
 * @param {(page: number, event: MouseEvent) => void} onPage called with the page asked for, from 1
 * @returns {{show: (page: number, pages: number) => void}}
 */
export function pager(nav, onPage) {
  let [current, last] = [1, 1];
  const button = (label, sign, target) => element("button", {
    type: "button", class: "button button-page", "aria-label": label, title: label,
    onclick: (event) => {
      if (event.currentTarget.getAttribute("aria-disabled") === "false") onPage(target(), event);
    },
  }, sign);
  const back = [button("First page", "«", () => 1), button("Previous page", "‹", () => current - 1)];
  const forth = [button("Next page", "›", () => current + 1), button("Last page", "»", () => last)];
  const where = element("span", { class: "pager-where" });
  nav.append(...back, where, ...forth);
  return {
    show(page, pages) {
      [current, last] = [page, pages];
      where.textContent = `Page ${count(page)} of ${count(pages)}`;
      // aria-disabled and not disabled: a disabled button would lose the focus on the last page.
      for (const each of back) each.setAttribute("aria-disabled", String(page <= 1));
      for (const each of forth) each.setAttribute("aria-disabled", String(page >= pages));
    },
  };
}
