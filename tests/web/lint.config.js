// ESLint's rules for the dashboard's scripts and their tests. Types are TypeScript's business.

import path from "node:path";
import js from "@eslint/js";
import globals from "globals";

const assets = "balancer/http/dashboard/assets";

export default [
  { basePath: path.resolve(import.meta.dirname, "../.."), ignores: [`${assets}/vendor/**`] },
  js.configs.recommended,
  {
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      eqeqeq: ["error", "always", { null: "ignore" }],
      "no-console": "error",
      "no-constructor-return": "error",
      "no-eval": "error",
      "no-implied-eval": "error",
      "no-self-compare": "error",
      "no-shadow": "error",
      "no-template-curly-in-string": "error",
      "no-unmodified-loop-condition": "error",
      "no-unused-vars": ["error", { argsIgnorePattern: "^_", ignoreRestSiblings: true }],
      "no-use-before-define": ["error", { functions: false, variables: false }],
      "no-var": "error",
      "prefer-const": "error",
      "array-callback-return": "error",
      "no-promise-executor-return": "error",
      "require-atomic-updates": "error",
      "no-restricted-syntax": [
        "error",
        {
          selector: "Identifier[name=/^(innerHTML|outerHTML|insertAdjacentHTML|dangerouslySetInnerHTML)$/]",
          message: "Text of models, clients and agents is drawn as text nodes: templates of html`…` do that.",
        },
      ],
    },
  },
  { files: [`${assets}/app/**/*.js`], languageOptions: { globals: globals.browser } },
  { files: ["tests/web/*.test.js", "tests/web/support/*.js"], languageOptions: { globals: globals.node } },
];
