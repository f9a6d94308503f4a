import assert from "node:assert/strict";
import { test } from "node:test";
import { changed, found, namesOf, numberAt } from "../../balancer/http/dashboard/assets/app/core/tree.js";

test("what did not change is the same object as before", () => {
  const tree = { agents: { one: { used: 1 }, two: { used: 2 } } };
  const after = changed(tree, { "agents.one.used": 3 }, []);
  assert.equal(found(after, ["agents", "one", "used"]), 3);
  assert.equal(found(after, ["agents", "two"]), tree.agents.two);
  assert.equal(tree.agents.one.used, 1);
});

test("names with dots and tildes are found again", () => {
  assert.deepEqual(namesOf("agents.gpu~11.a~0b"), ["agents", "gpu.1", "a~b"]);
  const after = changed({}, { "models.qwen2~15.agents": 2 }, []);
  assert.equal(numberAt(after, "models.qwen2~15.agents"), 2);
});

test("what is gone is gone, and parents that never were are no error", () => {
  const after = changed({ requests: { a: 1, b: 2 } }, {}, ["requests.a", "models.x.y"]);
  assert.deepEqual({ .../** @type {object} */ (found(after, ["requests"])) }, { b: 2 });
  assert.equal(found(after, ["models"]), undefined);
});

test("a model may be called like a part of every object", () => {
  const after = changed({}, { "models.__proto__.agents": 1 }, []);
  assert.equal(numberAt(after, "models.__proto__.agents"), 1);
  assert.equal(/** @type {any} */ ({}).agents, undefined);
  assert.equal(numberAt({}, "constructor.length"), null);
});

test("what was told is never taken for a piece of the page, whatever its names are", async () => {
  const { isValidElement } = await import("../../balancer/http/dashboard/assets/vendor/preact@10.29.8/preact.module.js");
  const told = { type: "script", props: {}, key: null };
  const after = changed({}, Object.fromEntries(Object.entries(told).map(([name, value]) => [`a.${name}`, value])), []);
  assert.equal(isValidElement(found(after, ["a"])), false);

  const named = changed({}, { "models.constructor": { agents: 1 } }, []);
  assert.equal(numberAt(named, "models.constructor.agents"), 1);
});
