// A block of code with a button that copies it.

import { byId, element } from "./dom.js";

function say(sentence) {
  // Emptied first: the same sentence twice would be read out once.
  byId("announcement").textContent = "";
  requestAnimationFrame(() => { byId("announcement").textContent = sentence; });
}

async function copy(code, button) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
    say("Copied.");
  } catch {
    // No clipboard without HTTPS or without leave: select, so that the keyboard can do it.
    getSelection().selectAllChildren(code);
    say("Selected. Copy it with the keyboard.");
  }
}

/** @param {string} text @param {string} what the block is, for the button's name and the block's */
export function codeBlock(text, what) {
  const code = element("code", {}, text);
  const button = element("button", { type: "button", class: "button button-copy", "aria-label": `Copy ${what}` }, "Copy");
  button.addEventListener("click", () => copy(code, button));
  return element("div", { class: "code-block" },
    element("pre", { tabindex: "0", role: "region", "aria-label": what }, code), button);
}
