-- Croft's rows on SQLite. Portable columns only: TEXT (ids, JSON, hex) and BIGINT (counts, microseconds, 0 or 1), so
-- that the same statements run on PostgreSQL.

-- The one order of everything that happened. `revision` is raised as the last act of each transaction;
-- changes up to and including `oldest` are trimmed.
CREATE TABLE revision (
    singleton BIGINT NOT NULL PRIMARY KEY CHECK (singleton = 1),
    revision BIGINT NOT NULL,
    oldest BIGINT NOT NULL CHECK (oldest <= revision)
);
INSERT INTO revision (singleton, revision, oldest) VALUES (1, 0, 0);

-- ---- tenants and what they may hold --------------------------------------------------------------------------------

CREATE TABLE tenants (
    id TEXT NOT NULL PRIMARY KEY,
    uid TEXT NOT NULL UNIQUE,
    parent TEXT REFERENCES tenants (id),
    display_name TEXT NOT NULL,
    generation BIGINT NOT NULL,
    labels TEXT NOT NULL,
    annotations TEXT NOT NULL,
    create_time BIGINT NOT NULL,
    update_time BIGINT NOT NULL
);
CREATE INDEX tenants_parent ON tenants (parent);

-- Every tenant with itself (distance 0) and each tenant above it. By uid, and kept when a tenant is deleted: its history
-- stays visible to those above it, and never shows up under a later tenant of the same id.
CREATE TABLE tenant_ancestors (
    tenant_uid TEXT NOT NULL,
    ancestor_uid TEXT NOT NULL,
    distance BIGINT NOT NULL,
    PRIMARY KEY (tenant_uid, ancestor_uid)
);
CREATE INDEX tenant_ancestors_ancestor ON tenant_ancestors (ancestor_uid);

CREATE TABLE quotas (
    tenant TEXT NOT NULL REFERENCES tenants (id),
    resource TEXT NOT NULL,
    quota_limit BIGINT CHECK (quota_limit >= 0),
    -- By this tenant and everything below it.
    used BIGINT NOT NULL CHECK (used >= 0),
    generation BIGINT NOT NULL,
    -- A charge makes a row too, and says nothing of these.
    labels TEXT NOT NULL DEFAULT '{}',
    annotations TEXT NOT NULL DEFAULT '{}',
    PRIMARY KEY (tenant, resource)
);

CREATE TABLE tokens (
    id TEXT NOT NULL PRIMARY KEY,
    uid TEXT NOT NULL UNIQUE,
    secret_sha256 TEXT NOT NULL,
    tenant TEXT REFERENCES tenants (id),
    role TEXT NOT NULL,
    description TEXT NOT NULL,
    disabled BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    labels TEXT NOT NULL,
    annotations TEXT NOT NULL,
    create_time BIGINT NOT NULL,
    update_time BIGINT NOT NULL,
    expire_time BIGINT,
    last_used_time BIGINT
);
CREATE INDEX tokens_tenant ON tokens (tenant);

-- ---- hosts ---------------------------------------------------------------------------------------------------------

CREATE TABLE hosts (
    id TEXT NOT NULL PRIMARY KEY,
    uid TEXT NOT NULL UNIQUE,
    generation BIGINT NOT NULL,
    labels TEXT NOT NULL,
    annotations TEXT NOT NULL,
    create_time BIGINT NOT NULL,
    update_time BIGINT NOT NULL,
    state TEXT NOT NULL,
    cordoned BIGINT NOT NULL,
    -- Since when, by whom and why; NULL: it is not under maintenance.
    maintenance TEXT,
    epoch BIGINT NOT NULL,
    -- The newest epoch that the agent has journaled.
    confirmed_epoch BIGINT NOT NULL,
    lease_expire_time BIGINT,
    capacity TEXT NOT NULL,
    -- Sums over host_claims, kept in the same transactions.
    claimed_vcpus BIGINT NOT NULL CHECK (claimed_vcpus >= 0),
    claimed_memory_mib BIGINT NOT NULL CHECK (claimed_memory_mib >= 0),
    claimed_disk_gib BIGINT NOT NULL CHECK (claimed_disk_gib >= 0),
    foreign_resources TEXT NOT NULL,
    reserve TEXT NOT NULL,
    overhead_memory_mib BIGINT NOT NULL,
    cpu_overcommit_percent BIGINT NOT NULL,
    info TEXT NOT NULL,
    features TEXT NOT NULL,
    conditions TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    -- Of the last report that told of its devices.
    devices_boot_id TEXT NOT NULL DEFAULT '',
    -- Raised by everything that placement looks at: a claim names the version that it was decided against.
    version BIGINT NOT NULL
);

CREATE INDEX hosts_maintenance ON hosts (id) WHERE maintenance IS NOT NULL;

-- The epoch of hosts that were deleted: one of the same id that comes later must not start below it.
CREATE TABLE former_hosts (
    id TEXT NOT NULL PRIMARY KEY,
    epoch BIGINT NOT NULL
);

CREATE TABLE enrolment_tokens (
    token_sha256 TEXT NOT NULL PRIMARY KEY,
    host TEXT NOT NULL,
    create_time BIGINT NOT NULL,
    expire_time BIGINT NOT NULL,
    spent_time BIGINT,
    csr_sha256 TEXT,
    certificate TEXT
);

-- What was fenced and must be destroyed by the host before it counts again. Outlives the host's row.
CREATE TABLE fenced (
    host TEXT NOT NULL,
    instance_uid TEXT NOT NULL,
    -- 1: the agent found nothing left of it. Stays a tombstone until the host counts again.
    absent BIGINT NOT NULL,
    create_time BIGINT NOT NULL,
    PRIMARY KEY (host, instance_uid)
);

-- ---- devices -------------------------------------------------------------------------------------------------------

CREATE TABLE devices (
    host TEXT NOT NULL REFERENCES hosts (id) ON DELETE CASCADE,
    device TEXT NOT NULL,
    -- As the host told it.
    body TEXT NOT NULL,
    -- 1: a report that told of all devices did not tell of this one.
    missing BIGINT NOT NULL DEFAULT 0 CHECK (missing IN (0, 1)),
    -- By an operator, with what he said.
    quarantine TEXT,
    -- Rises with every release.
    release_counter BIGINT NOT NULL DEFAULT 0 CHECK (release_counter >= 0),
    create_time BIGINT NOT NULL,
    update_time BIGINT NOT NULL,
    PRIMARY KEY (host, device)
);

-- What each GPU is promised for. A claim names the version that it was decided against.
CREATE TABLE gpu_modes (
    host TEXT NOT NULL,
    device TEXT NOT NULL,
    mode TEXT NOT NULL CHECK (mode IN ('IDLE', 'PASSTHROUGH', 'VGPU', 'MIG_VGPU')),
    -- What time-sliced vGPUs share, and have.
    framebuffer_mib BIGINT NOT NULL,
    framebuffer_used_mib BIGINT NOT NULL,
    -- The size that time-sliced vGPUs of a GPU that cannot mix sizes have; 0: there are none.
    vgpu_size_mib BIGINT NOT NULL CHECK (vgpu_size_mib >= 0),
    -- 1: sizes may be mixed.
    mixes BIGINT NOT NULL CHECK (mixes IN (0, 1)),
    version BIGINT NOT NULL,
    PRIMARY KEY (host, device),
    FOREIGN KEY (host, device) REFERENCES devices (host, device) ON DELETE CASCADE,
    CHECK (framebuffer_used_mib BETWEEN 0 AND framebuffer_mib),
    CHECK (mode = 'VGPU' OR (framebuffer_used_mib = 0 AND vgpu_size_mib = 0))
);

CREATE TABLE pools (
    id TEXT NOT NULL PRIMARY KEY,
    uid TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL,
    matches TEXT NOT NULL,
    generation BIGINT NOT NULL,
    labels TEXT NOT NULL,
    annotations TEXT NOT NULL,
    create_time BIGINT NOT NULL,
    update_time BIGINT NOT NULL
);

CREATE TABLE host_layouts (
    host TEXT NOT NULL PRIMARY KEY REFERENCES hosts (id) ON DELETE CASCADE,
    generation BIGINT NOT NULL,
    devices TEXT NOT NULL,
    -- What the host said of which generation.
    told_generation BIGINT NOT NULL,
    problems TEXT NOT NULL
);

-- ---- images and networks -------------------------------------------------------------------------------------------

CREATE TABLE images (
    uid TEXT NOT NULL PRIMARY KEY,
    -- `images/x` or `tenants/t/images/x`
    name TEXT NOT NULL UNIQUE,
    tenant TEXT REFERENCES tenants (id),
    id TEXT NOT NULL,
    description TEXT NOT NULL,
    boot TEXT NOT NULL,
    firmware TEXT NOT NULL,
    generation BIGINT NOT NULL,
    labels TEXT NOT NULL,
    annotations TEXT NOT NULL,
    create_time BIGINT NOT NULL,
    update_time BIGINT NOT NULL
);
CREATE INDEX images_tenant ON images (tenant);

CREATE TABLE image_copies (
    image_uid TEXT NOT NULL REFERENCES images (uid) ON DELETE CASCADE,
    host TEXT NOT NULL REFERENCES hosts (id) ON DELETE CASCADE,
    state TEXT NOT NULL,
    bytes_done BIGINT NOT NULL,
    bytes_total BIGINT NOT NULL,
    reason TEXT NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (image_uid, host)
);
CREATE INDEX image_copies_host ON image_copies (host);

CREATE TABLE networks (
    id TEXT NOT NULL PRIMARY KEY,
    uid TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL,
    bridge TEXT NOT NULL,
    vlan BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    labels TEXT NOT NULL,
    annotations TEXT NOT NULL,
    create_time BIGINT NOT NULL,
    update_time BIGINT NOT NULL
);

CREATE TABLE network_grants (
    network TEXT NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    tenant TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    PRIMARY KEY (network, tenant)
);
CREATE INDEX network_grants_tenant ON network_grants (tenant);

-- ---- Kubernetes clusters -------------------------------------------------------------------------------------------

CREATE TABLE clusters (
    uid TEXT NOT NULL PRIMARY KEY,
    -- `clusters/x` or `tenants/t/clusters/x`
    name TEXT NOT NULL UNIQUE,
    tenant TEXT REFERENCES tenants (id),
    id TEXT NOT NULL,
    description TEXT NOT NULL,
    -- The digest of the kubeconfig among the secrets; empty: the plane runs inside.
    credential_digest TEXT NOT NULL,
    node_server TEXT NOT NULL,
    cluster_dns TEXT NOT NULL,
    -- As last seen.
    status TEXT NOT NULL,
    generation BIGINT NOT NULL,
    labels TEXT NOT NULL,
    annotations TEXT NOT NULL,
    create_time BIGINT NOT NULL,
    update_time BIGINT NOT NULL
);
CREATE INDEX clusters_tenant ON clusters (tenant);
CREATE INDEX clusters_credential ON clusters (credential_digest);

-- Of the platform's: who may join it.
CREATE TABLE cluster_tenants (
    cluster_uid TEXT NOT NULL REFERENCES clusters (uid) ON DELETE CASCADE,
    tenant TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    PRIMARY KEY (cluster_uid, tenant)
);
CREATE INDEX cluster_tenants_tenant ON cluster_tenants (tenant);

-- ---- instances, and what they hold ---------------------------------------------------------------------------------

CREATE TABLE instances (
    uid TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenants (id),
    id TEXT NOT NULL,
    generation BIGINT NOT NULL,
    labels TEXT NOT NULL,
    annotations TEXT NOT NULL,
    create_time BIGINT NOT NULL,
    update_time BIGINT NOT NULL,
    delete_time BIGINT,
    -- The delete is in every snapshot from this revision on.
    delete_revision BIGINT,
    spec TEXT NOT NULL,
    image_uid TEXT NOT NULL REFERENCES images (uid),
    intent TEXT NOT NULL,
    seed_digest TEXT NOT NULL,
    host TEXT REFERENCES hosts (id),
    placement TEXT,
    -- Whose node it is, or is to be, and how far that is.
    cluster_uid TEXT REFERENCES clusters (uid),
    node TEXT,
    state TEXT NOT NULL,
    state_time BIGINT NOT NULL,
    reason TEXT NOT NULL,
    message TEXT NOT NULL,
    observed TEXT,
    observed_time BIGINT,
    -- 0: intent or truth changed since the state was last worked out.
    settled BIGINT NOT NULL,
    UNIQUE (tenant, id)
);
CREATE INDEX instances_host ON instances (host);
CREATE INDEX instances_cluster ON instances (cluster_uid) WHERE cluster_uid IS NOT NULL;
CREATE INDEX instances_image ON instances (image_uid);
CREATE INDEX instances_state ON instances (state, tenant);
CREATE INDEX instances_seed ON instances (seed_digest);
CREATE INDEX instances_unsettled ON instances (settled) WHERE settled = 0;

CREATE TABLE instance_labels (
    instance_uid TEXT NOT NULL REFERENCES instances (uid) ON DELETE CASCADE,
    label_key TEXT NOT NULL,
    label_value TEXT NOT NULL,
    PRIMARY KEY (instance_uid, label_key)
);
CREATE INDEX instance_labels_key ON instance_labels (label_key, label_value);

-- Networks that operators defined; the tenant's own has no row.
CREATE TABLE instance_networks (
    instance_uid TEXT NOT NULL REFERENCES instances (uid) ON DELETE CASCADE,
    network TEXT NOT NULL REFERENCES networks (id),
    PRIMARY KEY (instance_uid, network)
);
CREATE INDEX instance_networks_network ON instance_networks (network);

-- What an instance takes of its tenant's quota and of every ancestor's. No cascade: whoever deletes an instance gives
-- this back in the same transaction, or the database refuses.
CREATE TABLE charges (
    holder_uid TEXT NOT NULL REFERENCES instances (uid),
    tenant TEXT NOT NULL REFERENCES tenants (id),
    resource TEXT NOT NULL,
    amount BIGINT NOT NULL CHECK (amount > 0),
    PRIMARY KEY (holder_uid, resource)
);
CREATE INDEX charges_tenant ON charges (tenant);

-- What an instance takes of its host; at most one host.
CREATE TABLE host_claims (
    instance_uid TEXT NOT NULL PRIMARY KEY REFERENCES instances (uid),
    host TEXT NOT NULL REFERENCES hosts (id),
    claim TEXT NOT NULL,
    vcpus BIGINT NOT NULL CHECK (vcpus >= 0),
    memory_mib BIGINT NOT NULL CHECK (memory_mib >= 0),
    disk_gib BIGINT NOT NULL CHECK (disk_gib >= 0)
);
CREATE INDEX host_claims_host ON host_claims (host);

-- Exact pieces: the primary key refuses any overlap.
CREATE TABLE device_claims (
    host TEXT NOT NULL REFERENCES hosts (id),
    device TEXT NOT NULL,
    atom TEXT NOT NULL,
    instance_uid TEXT NOT NULL REFERENCES instances (uid),
    PRIMARY KEY (host, device, atom)
);
CREATE INDEX device_claims_instance ON device_claims (instance_uid);

-- AEAD-encrypted; the digest is the associated data.
CREATE TABLE secrets (
    digest TEXT NOT NULL PRIMARY KEY,
    key_id TEXT NOT NULL,
    nonce TEXT NOT NULL,
    ciphertext TEXT NOT NULL,
    create_time BIGINT NOT NULL
);

-- ---- work and history ----------------------------------------------------------------------------------------------

CREATE TABLE operations (
    uid TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    tenant_uid TEXT NOT NULL,
    target TEXT NOT NULL,
    target_uid TEXT NOT NULL,
    verb TEXT NOT NULL,
    counter BIGINT NOT NULL,
    -- Which part of the target; empty: all of it.
    subject TEXT NOT NULL,
    actor TEXT NOT NULL,
    -- The target's, when the operation was accepted.
    labels TEXT NOT NULL,
    annotations TEXT NOT NULL,
    create_time BIGINT NOT NULL,
    progress TEXT NOT NULL,
    done BIGINT NOT NULL,
    failure_reason TEXT,
    failure_message TEXT,
    end_time BIGINT
);
CREATE INDEX operations_newest ON operations (create_time, uid);
CREATE INDEX operations_open ON operations (target_uid) WHERE done = 0;
CREATE INDEX operations_done ON operations (end_time) WHERE done = 1;

CREATE TABLE changes (
    revision BIGINT NOT NULL PRIMARY KEY,
    time BIGINT NOT NULL,
    topic TEXT NOT NULL,
    kind TEXT NOT NULL,
    tenant_uid TEXT,
    target TEXT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX changes_topic ON changes (topic, revision);
CREATE INDEX changes_target ON changes (target, revision) WHERE topic = 'event';
CREATE INDEX changes_time ON changes (time, revision);

CREATE TABLE idempotency (
    actor TEXT NOT NULL,
    method TEXT NOT NULL,
    request_id TEXT NOT NULL,
    body_digest TEXT NOT NULL,
    answer TEXT NOT NULL,
    create_time BIGINT NOT NULL,
    PRIMARY KEY (actor, method, request_id)
);
CREATE INDEX idempotency_time ON idempotency (create_time);

-- Append-only.
CREATE TABLE audit (
    uid TEXT NOT NULL PRIMARY KEY,
    time BIGINT NOT NULL,
    actor TEXT NOT NULL,
    method TEXT NOT NULL,
    tenant TEXT,
    tenant_uid TEXT,
    target TEXT NOT NULL,
    request_id TEXT NOT NULL,
    result TEXT NOT NULL,
    message TEXT NOT NULL,
    peer TEXT NOT NULL
);
CREATE INDEX audit_newest ON audit (time, uid);
