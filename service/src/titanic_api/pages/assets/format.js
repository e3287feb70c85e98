// How numbers and values are written for people.

const COUNT = new Intl.NumberFormat("en-GB");
const MONEY = new Intl.NumberFormat("en-GB", { minimumFractionDigits: 2, maximumFractionDigits: 2 });

/** A count of passengers: 1,234. */
export const count = (value) => COUNT.format(value);

/** An amount with pence: 512.33. */
export const money = (value) => MONEY.format(value);

/** A part of a whole as a percentage, "–" of nothing. */
export const share = (part, whole) => (whole ? `${Math.round((100 * part) / whole)}%` : "–");

/** "1 passenger", "2 passengers". */
export const passengers = (value) => `${count(value)} ${value === 1 ? "passenger" : "passengers"}`;

export const CLASS_NAMES = { 1: "First", 2: "Second", 3: "Third" };

/** A word with its first letter large. */
export const capital = (word) => word.charAt(0).toUpperCase() + word.slice(1);
