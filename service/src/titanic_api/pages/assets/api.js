// Asks the API and turns everything that can go wrong into one kind of error, with a sentence for people.

const TIMEOUT_MILLISECONDS = 30_000;

/** An answer that is not a success, or no answer at all (status 0). */
export class ApiProblem extends Error {
  /** @param {number} status @param {string} title @param {string} detail */
  constructor(status, title, detail) {
    super(title);
    this.status = status;
    this.title = title;
    this.detail = detail;
  }
}

function waitSentence(response) {
  const seconds = Number(response.headers.get("Retry-After"));
  return seconds > 0 ? `The service asks to wait ${seconds} ${seconds === 1 ? "second" : "seconds"}.` : "";
}

async function problemOf(response) {
  let body = {};
  try {
    body = (await response.json()) ?? {};
  } catch {
    // A proxy in front may answer in something other than JSON: the status is all there is.
  }
  const title = typeof body.title === "string" ? body.title : response.statusText || "Error";
  const detail = typeof body.detail === "string" ? body.detail : "";
  const said = detail && detail !== title ? `${title}: ${detail}` : title;
  const sentence = /[.!?]$/.test(said) ? said : `${said}.`;
  return new ApiProblem(response.status, title, [`${sentence} (${response.status})`, waitSentence(response)].join(" ").trim());
}

/** The address of a path of the API ("people"), relative to the page so that a path prefix does no harm. */
export const address = (path) => new URL(path, document.baseURI);

/**
 * GET a path of the API as JSON.
 * @param {string} path relative, such as "people?limit=20"
 * @param {AbortSignal} [signal] stops the request; its AbortError is passed on
 * @returns {Promise<{body: *, total: number|null}>} total is X-Total-Count
 * @throws {ApiProblem}
 */
export async function getJson(path, signal) {
  const limits = [AbortSignal.timeout(TIMEOUT_MILLISECONDS), ...(signal ? [signal] : [])];
  try {
    const response = await fetch(address(path), { headers: { Accept: "application/json" }, signal: AbortSignal.any(limits) });
    if (!response.ok) throw await problemOf(response);
    const total = response.headers.get("X-Total-Count");
    return { body: await response.json(), total: total === null ? null : Number(total) };
  } catch (error) {
    if (error instanceof ApiProblem || signal?.aborted) throw error;
    if (error.name === "TimeoutError") {
      throw new ApiProblem(0, "No answer", `There was no answer within ${TIMEOUT_MILLISECONDS / 1000} seconds.`);
    }
    throw new ApiProblem(0, "No answer", "The service could not be reached, or its answer could not be read.");
  }
}
