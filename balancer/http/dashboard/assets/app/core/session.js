// Who has signed in, where the balancer asks for keys. A cookie that no script can read stands for
// the key; what changes something says the session's token beside it.

import { computed, signal } from "@preact/signals";
import { ask, onUnauthorized, useToken } from "./calls.js";

/**
 * @typedef {object} Session
 * @property {boolean} is_needed whether keys are configured
 * @property {boolean} is_open
 * @property {string} [key] the name of the key that was used
 * @property {string} [csrf_token]
 */

/** null: the balancer has not said yet. */
export const session = signal(/** @type {Session | null} */ (null));
export const mustSignIn = computed(() => {
  const known = session.value;
  return known !== null && known.is_needed && !known.is_open;
});

/** Ask who has signed in. What is known stays where the balancer does not answer. */
export async function look() {
  await ask("GET", "/session").then(take, () => undefined);
}

/** @param {string} key @throws {import("./calls.js").Refused} */
export async function signIn(key) {
  take(await ask("POST", "/session", { key }));
}

/** The page begins anew: nothing that it knew stays in sight. @throws {import("./calls.js").Refused} */
export async function signOut() {
  await ask("DELETE", "/session");
  location.reload();
}

/** @param {Session} said */
function take(said) {
  useToken(said.csrf_token ?? "");
  session.value = said;
}

onUnauthorized(look);
