// What a browser keeps for the page, in IndexedDB: its identity, with keys
// that cannot be read out, and messages.

import { Identity, type Stored } from "./identity";

const database = "peerlink";
const tables = ["identity", "messages"];
const self = "self";

function open(): Promise<IDBDatabase> {
  return new Promise((done, failed) => {
    const r = indexedDB.open(database, 2);
    r.onupgradeneeded = () => {
      for (const name of tables) if (!r.result.objectStoreNames.contains(name)) r.result.createObjectStore(name);
    };
    r.onsuccess = () => done(r.result);
    r.onerror = () => failed(new Error(`this browser keeps no data for the page: ${r.error?.message ?? "refused"}`));
    r.onblocked = () => failed(new Error("an older version of this page is open in another tab: close it"));
  });
}

async function run<T>(name: string, mode: IDBTransactionMode, what: (s: IDBObjectStore) => IDBRequest<T> | undefined): Promise<T | undefined> {
  const db = await open();
  try {
    return await new Promise<T | undefined>((done, failed) => {
      const tx = db.transaction(name, mode, { durability: "strict" });
      const r = what(tx.objectStore(name));
      tx.oncomplete = () => done(r?.result);
      tx.onabort = tx.onerror = () => failed(tx.error ?? new Error("the browser's store failed"));
    });
  } finally {
    db.close();
  }
}

/** Table is one kind of things that are kept. */
export interface Table {
  all(): Promise<unknown[]>;
  /** change puts and deletes, all or nothing. */
  change(put: [key: string, value: unknown][], gone: string[]): Promise<void>;
}

/** table returns one by its name. */
export function table(name: string): Table {
  return {
    all: async () => (await run<unknown[]>(name, "readonly", (s) => s.getAll())) ?? [],
    change: async (put, gone) => {
      await run(name, "readwrite", (s) => {
        for (const [k, v] of put) s.put(v, k);
        for (const k of gone) s.delete(k);
        return undefined;
      });
    },
  };
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
    await run("identity", "readwrite", (s) => s.add(fresh.stored, self)); // fails where another tab was first
    return fresh;
  } catch (e) {
    const theirs = await read();
    if (!theirs) throw e;
    return Identity.from(theirs);
  }
}

function read(): Promise<Stored | undefined> {
  return run<Stored | undefined>("identity", "readonly", (s) => s.get(self));
}

/** save keeps an identity in place of the one before. */
export async function save(id: Identity): Promise<void> {
  await run("identity", "readwrite", (s) => s.put(id.stored, self));
}
