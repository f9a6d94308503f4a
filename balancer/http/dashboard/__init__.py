"""The dashboard at `/` of the management port: pages for operators, from files that ship with us.

No build step: `assets/app` is ES modules that a browser runs as they are, typed by comments
(`make check-web`). `assets/app/core` keeps the picture of the cluster, fed by the live sockets,
`parts` is what pages are made of, `pages` has a file for each page.

**How a page is added.** `assets/app/pages/<name>.js` exports a component as `Page`; a row in
`assets/app/pages.js` names it, its path and its icon, and loads it when it is first shown; what it
looks like stands in `assets/styles/<name>.css`, with a line in `assets/index.html`. A page reads
signals of `core/live.js`, asks through `core/calls.js`, and writes text only as text: `html` never
parses what came from elsewhere, and nothing here sets `innerHTML`. Styles that depend on data go
through a node's `style` object, as the policy of `handler.py` allows no style in markup.
"""
