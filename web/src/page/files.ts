// Where received files go: the browser's own file system for the page, or
// memory where it has none. The user saves them from there.

import type { FileSink } from "../peerlink";

const folder = "received";
/** What is taken without a file system, in bytes: it is held in memory. */
const memoryMost = 256 << 20;
let inUse = 0; // of it
/** What is left free of the browser's room, in bytes. */
const spare = 16 << 20;

/** Kept is a sink whose file can be fetched once it was kept. */
export interface Kept extends FileSink {
  file(): Promise<Blob>;
  /** forget frees the room. */
  forget(): Promise<void>;
}

/** room throws where there is none for so many bytes, with a reason that the sender may see. */
export async function room(bytes: number): Promise<FileSystemDirectoryHandle | undefined> {
  const { quota, usage } = (await navigator.storage?.estimate?.()) ?? {};
  if (quota !== undefined && usage !== undefined && bytes > quota - usage - spare) throw new Error("there is not enough room for the files");
  const dir = await open();
  if (!dir && bytes > memoryMost - inUse) throw new Error("that is too much for this browser");
  return dir;
}

/** place makes room for a file of a size, or throws as room does. */
export async function place(bytes: number): Promise<Kept> {
  const dir = await room(bytes);
  return dir ? stored(dir) : inMemory(bytes);
}

/** What was received and not forgotten is removed after so long, in milliseconds. */
const keptFor = 24 * 3600_000;

/** clear removes files that an earlier page has left. */
export async function clear(): Promise<void> {
  const dir = await open();
  if (!dir) return;
  try {
    for await (const [name, handle] of dir.entries()) {
      if (handle.kind !== "file") continue;
      const { lastModified } = await (handle as FileSystemFileHandle).getFile();
      if (Date.now() - lastModified > keptFor) await dir.removeEntry(name);
    }
  } catch {
    // one that is in use, or a browser that cannot list: the next page tries again
  }
}

async function open(): Promise<FileSystemDirectoryHandle | undefined> {
  try {
    const dir = await (await navigator.storage.getDirectory()).getDirectoryHandle(folder, { create: true });
    return "createWritable" in FileSystemFileHandle.prototype ? dir : undefined;
  } catch {
    return undefined;
  }
}

async function stored(dir: FileSystemDirectoryHandle): Promise<Kept> {
  const name = crypto.randomUUID();
  const handle = await dir.getFileHandle(name, { create: true });
  const out = await handle.createWritable();
  const forget = () => dir.removeEntry(name).catch(() => {}); // gone already
  return {
    write: (b) => out.write(b),
    keep: () => out.close(),
    discard: async () => {
      await out.abort().catch(() => {}); // it may have failed before
      await forget();
    },
    file: () => handle.getFile(),
    forget,
  };
}

function inMemory(bytes: number): Kept {
  let parts: Uint8Array<ArrayBuffer>[] = [];
  inUse += bytes;
  const forget = async () => {
    parts = [];
    inUse -= bytes;
    bytes = 0;
  };
  return {
    write: async (b) => void parts.push(b.slice()),
    keep: async () => {},
    discard: forget,
    file: async () => new Blob(parts),
    forget,
  };
}
