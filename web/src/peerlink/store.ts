// Where a browser keeps its identity: IndexedDB, which can hold keys that
// cannot be read out.

import { Identity, type Stored } from "./identity";

const database = "peerlink";
const table = "identity";
const self = "self";

function open(): Promise<IDBDatabase> {
  return new Promise((done, failed) => {
    const r = indexedDB.open(database, 1);
    r.onupgradeneeded = () => r.result.createObjectStore(table);
    r.onsuccess = () => done(r.result);
    r.onerror = () => failed(new Error(`this browser keeps no data for the page: ${r.error?.message ?? "refused"}`));
    r.onblocked = () => failed(new Error("an older version of this page is open in another tab: close it"));
  });
}

async function run<T>(mode: IDBTransactionMode, what: (s: IDBObjectStore) => IDBRequest<T>): Promise<T> {
  const db = await open();
  try {
    return await new Promise<T>((done, failed) => {
      const tx = db.transaction(table, mode);
      const r = what(tx.objectStore(table));
      tx.oncomplete = () => done(r.result);
      tx.onabort = tx.onerror = () => failed(tx.error ?? new Error("the browser's store failed"));
    });
  } finally {
    db.close();
  }
}

/**
 * load returns this browser's identity and makes one, called name, where there
 * is none. Two tabs that do so at once get the same one.
 */
export async function load(name: string): Promise<Identity> {
  const kept = await read();
  if (kept) return Identity.from(kept);
  const fresh = await Identity.create(name);
  try {
    await run("readwrite", (s) => s.add(fresh.stored, self)); // fails where another tab was first
    return fresh;
  } catch (e) {
    const theirs = await read();
    if (!theirs) throw e;
    return Identity.from(theirs);
  }
}

function read(): Promise<Stored | undefined> {
  return run<Stored | undefined>("readonly", (s) => s.get(self));
}

/** save keeps an identity in place of the one before. */
export async function save(id: Identity): Promise<void> {
  await run("readwrite", (s) => s.put(id.stored, self));
}
