// The door, where the balancer asks for keys.

import { useEffect, useRef, useState } from "preact/hooks";
import { signIn } from "../core/calls.js";
import { html } from "../core/html.js";

export function SignIn() {
  const field = useRef(/** @type {HTMLInputElement | null} */ (null));
  const [failure, setFailure] = useState("");
  const [isBusy, setBusy] = useState(false);
  useEffect(() => field.current?.focus(), []);
  const submit = async (/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    setBusy(true);
    try {
      await signIn(field.current?.value.trim() ?? "");
    } catch (error) {
      setFailure(error instanceof Error ? error.message : String(error));
      setBusy(false);
      field.current?.select();
    }
  };
  return html`<form class="sign-in" onSubmit=${submit}>
    <h1>Sign in</h1>
    <p>This balancer asks for a key. One of role <code>admin</code> opens the dashboard.</p>
    <label for="sign-in-key">API key or token</label>
    <input
      ref=${field}
      id="sign-in-key"
      name="key"
      type="password"
      autocomplete="current-password"
      spellcheck=${false}
      required
      aria-describedby="sign-in-failure"
    />
    <p class="failure" id="sign-in-failure" role="alert">${failure}</p>
    <button type="submit" class="primary" disabled=${isBusy}>Sign in</button>
  </form>`;
}
