// A custom resource for the peer tests: objects that no API server has code for, so that they pass through the generic storage.

import type { KubeClient } from './kube-client.ts';
import { until } from './program.ts';
import type { Kind } from './write-load.ts';

export function widgetsIn(namespace: string): Kind {
  return {
    path: `/apis/keelson.test/v1/namespaces/${namespace}/widgets`,
    body: (name) => ({
      apiVersion: 'keelson.test/v1',
      kind: 'Widget',
      metadata: { name },
      spec: { size: 3, text: 'x'.repeat(300) },
    }),
  };
}

const definition = {
  apiVersion: 'apiextensions.k8s.io/v1',
  kind: 'CustomResourceDefinition',
  metadata: { name: 'widgets.keelson.test' },
  spec: {
    group: 'keelson.test',
    scope: 'Namespaced',
    names: { plural: 'widgets', singular: 'widget', kind: 'Widget' },
    versions: [
      {
        name: 'v1',
        served: true,
        storage: true,
        schema: { openAPIV3Schema: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true } },
      },
    ],
  },
};

/** Makes the API server serve widgets; resolves when it does. */
export async function defineWidgets(client: KubeClient, kind: Kind): Promise<void> {
  await client.object('POST', '/apis/apiextensions.k8s.io/v1/customresourcedefinitions', definition);
  await until('the CRD is served', 30_000, async () => (await client.send('GET', kind.path)).status === 200);
}
