import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { app } from "./support/browser.js";

const { addPictures, draft, edit, editedIn, finish, removePicture, write } = await app("playground/draft.js");

const picture = (name) => ({ name, url: `data:${name}`, bytes: 1 });
const names = () => draft.value.pictures.map((one) => one.name);

beforeEach(() => {
  finish();
  finish();
});

test("what was being written is there again after another question was edited", () => {
  write("half a thou");
  addPictures([picture("a")]);

  edit("c", 3, { text: "First", pictures: [] });
  assert.deepEqual([draft.value.text, names(), editedIn("c")], ["First", [], 3]);
  edit("c", 4, { text: "Second", pictures: [] });
  finish();

  assert.deepEqual([draft.value.text, names(), editedIn("c")], ["half a thou", ["a"], null]);
  finish();
  assert.equal(draft.value.text, "");
});

test("an edit is of one conversation", () => {
  edit("c", 0, { text: "First", pictures: [] });
  assert.equal(editedIn("other"), null);
});

test("pictures that are read at the same time all arrive, as many as there may be", () => {
  addPictures([picture("a")]);
  addPictures([picture("b"), picture("c")]);
  removePicture(1);
  assert.deepEqual(names(), ["a", "c"]);
  addPictures([picture("d"), picture("e"), picture("f")]);
  assert.deepEqual(names(), ["a", "c", "d", "e"]);
});
