// The JavaScript client against a cluster: node client.mjs (KUBECONFIG names it).
//
// Lists, a watch, an informer, patches, and documents that are applied as they are read from YAML.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

// The client is installed elsewhere: NODE_MODULES says where.
const require = createRequire(`${process.env.NODE_MODULES}/`);
const k8s = require('@kubernetes/client-node');

const NAMESPACE = 'javascript';
const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const objects = k8s.KubernetesObjectApi.makeApiClient(config);

const refused = async (code, reason, call) => {
    const error = await call().then(() => assert.fail(`not refused with ${code}`), (error) => error);
    const body = typeof error.body === 'string' ? JSON.parse(error.body) : error.body;
    assert.deepEqual([error.code, body?.reason], [code, reason], String(error));
};

// Resolves when `of` has been called with something that `fits`.
const until = (what, register, fits) =>
    new Promise((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error(`${what}: not within 30 s`)), 30_000);
        register((...seen) => {
            if (fits(...seen)) {
                clearTimeout(timer);
                resolve(seen);
            }
        });
    });

const map = (name, data = {}) => ({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, namespace: NAMESPACE }, data });

async function typed() {
    await core.createNamespace({ body: { metadata: { name: NAMESPACE } } });
    for (const name of ['a', 'b', 'c']) {
        await core.createNamespacedConfigMap({ namespace: NAMESPACE, body: map(name, { k: 'v' }) });
    }
    await refused(409, 'AlreadyExists', () => core.createNamespacedConfigMap({ namespace: NAMESPACE, body: map('a') }));
    await refused(404, 'NotFound', () => core.readNamespacedConfigMap({ namespace: NAMESPACE, name: 'none' }));
    const page = await core.listNamespacedConfigMap({ namespace: NAMESPACE, limit: 2 });
    assert.equal(page.items.length, 2);
    const rest = await core.listNamespacedConfigMap({ namespace: NAMESPACE, limit: 50, _continue: page.metadata._continue });
    assert.ok(rest.items.some((item) => item.metadata.name === 'c'));
    const change = (type, body) =>
        core.patchNamespacedConfigMap({ namespace: NAMESPACE, name: 'a', body }, k8s.setHeaderOptions('Content-Type', type));
    let made = await change(k8s.PatchStrategy.JsonPatch, [{ op: 'add', path: '/data/more', value: 'x' }]);
    assert.deepEqual(made.data, { k: 'v', more: 'x' });
    made = await change(k8s.PatchStrategy.MergePatch, { data: { k: null } });
    assert.deepEqual(made.data, { more: 'x' });
    made = await change(k8s.PatchStrategy.StrategicMergePatch, { metadata: { labels: { tier: 'front' } } });
    assert.equal(made.metadata.labels.tier, 'front');
}

async function watched() {
    const path = `/api/v1/namespaces/${NAMESPACE}/configmaps`;
    const { metadata } = await core.listNamespacedConfigMap({ namespace: NAMESPACE });
    let request;
    const ended = await new Promise((resolve, reject) => {
        const kinds = [];
        const event = (kind, object) => {
            kinds.push(`${kind} ${object.metadata.name}`);
            if (kinds.length === 2) resolve(kinds);
        };
        new k8s.Watch(config)
            .watch(path, { resourceVersion: metadata.resourceVersion, timeoutSeconds: 30 }, event, reject)
            .then((started) => { request = started; })
            .then(() => core.createNamespacedConfigMap({ namespace: NAMESPACE, body: map('d') }))
            .then(() => core.deleteNamespacedConfigMap({ namespace: NAMESPACE, name: 'd' }))
            .catch(reject);
    });
    request.abort();
    assert.deepEqual(ended, ['ADDED d', 'DELETED d']);
}

async function informed() {
    const path = `/api/v1/namespaces/${NAMESPACE}/configmaps`;
    const informer = k8s.makeInformer(config, path, () => core.listNamespacedConfigMap({ namespace: NAMESPACE }));
    const named = (name) => (object) => object.metadata.name === name;
    const known = until('the informer knows what is there', (seen) => informer.on('add', seen), named('a'));
    await informer.start();
    await known;
    const added = until('the informer sees what is new', (seen) => informer.on('add', seen), named('e'));
    await core.createNamespacedConfigMap({ namespace: NAMESPACE, body: map('e') });
    await added;
    const gone = until('the informer sees what is gone', (seen) => informer.on('delete', seen), named('e'));
    await core.deleteNamespacedConfigMap({ namespace: NAMESPACE, name: 'e' });
    await gone;
    await informer.stop();
}

const DOCUMENTS = `
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: ${NAMESPACE}}
data: {colour: blue}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: ${NAMESPACE}}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: ${NAMESPACE}}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: 'nowhere.local/web:1'}]}
`;

async function applied() {
    const apply = (document, manager, force) =>
        objects.patch(document, undefined, undefined, manager, force, k8s.PatchStrategy.ServerSideApply);
    for (const document of k8s.loadAllYaml(DOCUMENTS)) {
        const made = await apply(document, 'javascript');
        assert.equal(made.metadata.managedFields[0].manager, 'javascript', made.kind);
    }
    const other = map('settings', { colour: 'red' });
    await refused(409, 'Conflict', () => apply(other, 'other'));
    assert.equal((await apply(other, 'other', true)).data.colour, 'red');
    const service = await core.readNamespacedService({ namespace: NAMESPACE, name: 'web' });
    assert.match(service.spec.clusterIP, /^10\.43\./);
}

for (const story of [typed, watched, informed, applied]) {
    await story();
    console.log(story.name);
}
await core.deleteNamespace({ name: NAMESPACE });
process.exit(0);
