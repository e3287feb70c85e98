// Draws the plots as SVG at the width they have, each with its title, axes, values and the same numbers as a table.

import { dataTable, drawing, element } from "./dom.js";
import { count, share } from "./format.js";
import { byAge, byClass, byFare, bySex } from "./statistics.js";

/** @typedef {import("./statistics.js").Group} Group */

const ROW = 44;
const BAR = 16;
const AXIS = 42;

/** Round numbers from 0 to at least `most`, about `wanted` of them; at least 0 and 1. */
function ticks(most, wanted) {
  const rough = Math.max(most, 1) / wanted;
  const magnitude = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(1, [1, 2, 5, 10].map((factor) => factor * magnitude).find((size) => size >= rough));
  return Array.from({ length: Math.ceil(Math.max(most, 1) / step) + 1 }, (_, index) => index * step);
}

const text = (x, y, className, content, anchor = "start") =>
  drawing("text", { x, y, class: className, "text-anchor": anchor }, content);
const line = (x1, y1, x2, y2, className) => drawing("line", { x1, y1, x2, y2, class: className });
const sentence = (group) =>
  `${group.label}: ${count(group.survived)} survived, ${count(group.died)} died, ${count(group.total)} in all`;

/** Survivors and dead as one bar a group, on a common scale of passengers. */
function bars(groups, groupAxis, width) {
  const marks = ticks(Math.max(...groups.map((group) => group.total)), width > 420 ? 5 : 4);
  const end = width - 12;
  const x = (value) => 1 + (value / marks.at(-1)) * (end - 1);
  const top = 22;
  const bottom = top + groups.length * ROW;
  const grid = marks.flatMap((mark) => [
    line(x(mark), top, x(mark), bottom, mark ? "grid" : "axis"),
    text(x(mark), bottom + 16, "tick", count(mark), mark === 0 ? "start" : mark === marks.at(-1) ? "end" : "middle"),
  ]);
  const rows = groups.map((group, index) => {
    const y = top + index * ROW + 8;
    return drawing("g", { class: "group" }, drawing("title", {}, sentence(group)),
      text(8, y + 10, "label", group.label),
      text(end, y + 10, "value", `${count(group.survived)} of ${count(group.total)}, ${share(group.survived, group.total)}`, "end"),
      drawing("rect", { class: "survived", x: x(0), y: y + 16, width: x(group.survived) - x(0), height: BAR }),
      drawing("rect", { class: "died", x: x(group.survived), y: y + 16, width: x(group.total) - x(group.survived), height: BAR }));
  });
  return { height: bottom + AXIS, marks: [
    text(0, 12, "axis-title", groupAxis), text(end, 12, "axis-title", "Survived", "end"),
    ...grid, ...rows, text((1 + end) / 2, bottom + 36, "axis-title", "Passengers", "middle"),
  ] };
}

/** Survivors and dead as one column a band; bands double in width, so equal columns make a logarithmic scale. */
function columns(groups, groupAxis, width) {
  const marks = ticks(Math.max(...groups.map((group) => group.total)), 5);
  const [left, top, bottom] = [40, 40, 330];
  const gap = 14;
  const step = (width - left - gap - 14) / groups.length;
  const y = (value) => bottom - (value / marks.at(-1)) * (bottom - top);
  const x = (index) => left + index * step + (index ? gap : 0);
  const grid = marks.flatMap((mark) => [
    line(left, y(mark), width, y(mark), mark ? "grid" : "axis"),
    text(left - 6, y(mark) + 4, "tick", count(mark), "end"),
  ]);
  const stacks = groups.map((group, index) => drawing("g", { class: "group" }, drawing("title", {}, sentence(group)),
    drawing("rect", { class: "survived", x: x(index) + 1, y: y(group.survived), width: step - 2, height: bottom - y(group.survived) }),
    drawing("rect", {
      class: "died", x: x(index) + 1, y: y(group.total), width: step - 2, height: y(group.survived) - y(group.total),
    }),
    text(x(index) + step / 2, y(group.total) - 6, "value", count(group.total), "middle")));
  const edges = groups.slice(1).map((group, index) => text(x(index + 1), bottom + 16, "tick", count(group.from), "middle"));
  const last = groups.at(-1);
  if (Number.isFinite(last.below)) edges.push(text(x(groups.length - 1) + step, bottom + 16, "tick", count(last.below), "middle"));
  return { height: bottom + AXIS, marks: [
    text(0, 12, "axis-title", "Passengers"), ...grid, ...stacks,
    text(x(0) + step / 2, bottom + 16, "tick", "Free", "middle"), ...edges,
    text((left + width) / 2, bottom + 36, "axis-title", groupAxis, "middle"),
  ] };
}

function numbersTable(plot) {
  const rows = plot.groups.map((group) =>
    [group.label, count(group.survived), count(group.died), count(group.total), share(group.survived, group.total)]);
  return element("details", { class: "numbers" }, element("summary", {}, "The numbers as a table"),
    dataTable(plot.title, [plot.axis, "Survived", "Died", "All", "Share"], rows, "numbers-table"));
}

/** A figure that draws itself anew whenever its width changes. */
function figure(plot) {
  const titleId = `plot-${plot.id}`;
  const described = `${plot.title}. ${plot.groups.map(sentence).join("; ")}.`;
  const canvas = drawing("svg", { role: "img", "aria-label": described, class: "plot" });
  const frame = element("div", { class: "plot-frame" }, canvas);
  let drawn = 0;
  function draw(width) {
    if (!width || width === drawn) return;
    drawn = width;
    const { height, marks } = plot.draw(plot.groups, plot.axis, width);
    canvas.setAttribute("viewBox", `0 0 ${width} ${height}`);
    canvas.setAttribute("width", String(width));
    canvas.setAttribute("height", String(height));
    canvas.replaceChildren(...marks);
  }
  // Drawn in the next frame: a drawing alters the frame's height, which the browser reports as a loop while it observes.
  new ResizeObserver(([{ contentRect }]) => requestAnimationFrame(() => draw(Math.floor(contentRect.width)))).observe(frame);
  return element("figure", { id: plot.id, "aria-labelledby": titleId },
    element("figcaption", {}, element("h3", { id: titleId }, plot.title), element("p", { class: "note" }, plot.note)),
    frame, numbersTable(plot));
}

/**
 * The four figures of a list of people.
 * @param {Array<Object>} people as the API gives them
 * @returns {HTMLElement[]}
 */
export function figures(people) {
  const ages = byAge(people);
  const fares = byFare(people);
  return [
    { id: "by-class", title: "Survival by class", axis: "Class", draw: bars, groups: byClass(people),
      note: "Each bar is everyone who travelled in that class." },
    { id: "by-sex", title: "Survival by sex", axis: "Sex", draw: bars, groups: bySex(people),
      note: "Each bar is everyone recorded as of that sex." },
    { id: "by-age", title: "Survival by age", axis: "Age in years", draw: bars, groups: ages,
      note: `The age of ${count(ages.at(-1).total)} is not on record; they have a bar of their own.` },
    { id: "by-fare", title: "Fares paid", axis: "Fare in pounds", draw: columns, groups: fares,
      note: `From £5 on each band is twice as wide as the one before; ${count(fares[0].total)} travelled free and stand apart.` },
  ].map(figure);
}
