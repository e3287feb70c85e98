// Counts survivors by group. An unknown age is a group of its own: no age is invented.

import { capital, CLASS_NAMES } from "./format.js";

/** @typedef {{label: string, survived: number, died: number, total: number}} Group */

/** @returns {Group} */
export function tally(label, people) {
  const survived = people.filter((person) => person.survived).length;
  return { label, survived, died: people.length - survived, total: people.length };
}

/** @returns {Group[]} first, second and third class */
export const byClass = (people) => [1, 2, 3].map((number) =>
  tally(CLASS_NAMES[number], people.filter((person) => person.passengerClass === number)));

/** @returns {Group[]} female, male, and other if there is anyone */
export const bySex = (people) => ["female", "male", "other"]
  .map((sex) => tally(capital(sex), people.filter((person) => person.sex === sex)))
  .filter((group) => group.total || group.label !== "Other");

/** @returns {Group[]} bands of ten years, sixty and over together, and unknown */
export function byAge(people) {
  const band = (label, from, below) =>
    tally(label, people.filter(({ age }) => age !== null && age >= from && age < below));
  return [
    band("Under 10", 0, 10),
    ...[10, 20, 30, 40, 50].map((from) => band(`${from}–${from + 9}`, from, from + 10)),
    band("60 and over", 60, Infinity),
    tally("Unknown", people.filter(({ age }) => age === null)),
  ];
}

const FIRST_EDGE = 5;
const LAST_EDGE = 640;

/**
 * Fares in bands that double in width, because most are small and a few are very large; free passage stands apart.
 * @returns {Array<Group & {from: number, below: number}>} from <= fare < below, in pounds; `below` is Infinity in a last open band
 */
export function byFare(people) {
  const band = (label, from, below) =>
    ({ from, below, ...tally(label, people.filter(({ fare }) => fare >= from && fare < below)) });
  const groups = [
    { from: 0, below: 0, ...tally("Free", people.filter(({ fare }) => fare === 0)) },
    { from: 0, below: FIRST_EDGE, ...tally(`Under ${FIRST_EDGE}`, people.filter(({ fare }) => fare > 0 && fare < FIRST_EDGE)) },
  ];
  for (let from = FIRST_EDGE; from < LAST_EDGE; from *= 2) groups.push(band(`${from} to ${from * 2}`, from, from * 2));
  const rest = band(`${LAST_EDGE} and more`, LAST_EDGE, Infinity);
  return rest.total ? [...groups, rest] : groups;
}
