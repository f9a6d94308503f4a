// A button that goes round: as the system is, light, dark.

import { html } from "../core/html.js";
import { choose, theme } from "../core/theme.js";
import { Icon } from "./icon.js";

/** @type {{[theme in import("../core/theme.js").Theme]: {next: import("../core/theme.js").Theme, icon: import("./icon.js").IconName, word: string}}} */
const STEPS = {
  system: { next: "light", icon: "system", word: "as the system" },
  light: { next: "dark", icon: "sun", word: "light" },
  dark: { next: "system", icon: "moon", word: "dark" },
};

export function ThemeSwitch() {
  const step = STEPS[theme.value];
  const label = `Colours: ${step.word}. Change`;
  return html`<button
    type="button"
    class="quiet theme-switch"
    aria-label=${label}
    title=${label}
    onClick=${() => choose(step.next)}
  >
    <${Icon} name=${step.icon} />
  </button>`;
}
