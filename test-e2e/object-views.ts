// The views of one state that must agree: the API server's cache, its consistent list, and the keys in the store itself.

import assert from 'node:assert/strict';
import type { KubeClient, KubeList } from './kube-client.ts';
import type { Store } from './store.ts';

/** `name@revision` of each object, sorted: what two views of the same state must have in common. */
export function identities(lists: readonly KubeList[]): string[] {
  return lists
    .flatMap((list) => list.items.map(({ metadata }) => `${metadata.name}@${metadata.resourceVersion}`))
    .sort();
}

/** Compares the views of a resource that nobody writes meanwhile. Returns how many objects there are. */
export async function compareViews(client: KubeClient, store: Store, path: string, prefix: string): Promise<number> {
  const consistent = identities([await client.list(path)]);
  const cached = identities([await client.list(path, { resourceVersion: '0' })]);
  const keys = await store.keys(prefix);
  const stored = keys.map(({ key, modRevision }) => `${key.slice(key.lastIndexOf('/') + 1)}@${modRevision}`).sort();
  assert.deepEqual(cached, consistent, `${path}: cache against consistent list`);
  assert.deepEqual(stored, consistent, `${path}: store against consistent list`);
  return consistent.length;
}
