-- A slot for a file: what its owner said of it. It is ready when a stored blob of the same owner, hash and size is
-- there. No foreign key between the two: the bytes may come with another slot's upload.
CREATE TABLE attachments (
    attachment_id uuid PRIMARY KEY,
    owner text COLLATE "C" NOT NULL CHECK (owner ~ '^[ -~]{1,128}$'),
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    size bigint NOT NULL CHECK (size >= 0),
    content_type text NOT NULL,
    name text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- When it goes, unless something is done with it meanwhile.
    expires_at timestamptz NOT NULL,
    -- When it went. The row stays for a while, so that those who may read it are told that it is gone.
    gone_at timestamptz,
    -- How many blobs were begun for it.
    uploads smallint NOT NULL DEFAULT 0
);

CREATE INDEX attachments_of_owner ON attachments (owner, created_at);
CREATE INDEX attachments_of_content ON attachments (owner, hash, size) WHERE gone_at IS NULL;
CREATE INDEX attachments_expiring ON attachments (expires_at) WHERE gone_at IS NULL;
CREATE INDEX attachments_gone ON attachments (gone_at) WHERE gone_at IS NOT NULL;

-- An object of the store, whole or in parts. The row is there before the first byte and until after the last.
CREATE TABLE blobs (
    -- The object's name, used once.
    blob_id uuid PRIMARY KEY,
    owner text COLLATE "C" NOT NULL,
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    size bigint NOT NULL CHECK (size >= 0),
    state text NOT NULL CHECK (state IN ('uploading', 'stored', 'doomed')),
    -- Whose upload it is.
    attachment_id uuid,
    -- Names the request that uploads it; a later one takes it over with another.
    fence uuid NOT NULL,
    -- How many bytes are safe, and what the store needs to go on there.
    received bigint NOT NULL DEFAULT 0,
    checkpoint jsonb,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    touched_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK ((state = 'uploading') <= (attachment_id IS NOT NULL))
);

-- The code stores a content once and has one upload a slot; these are also what would tell us that it does not.
CREATE UNIQUE INDEX blobs_stored ON blobs (owner, hash, size) WHERE state = 'stored';
CREATE UNIQUE INDEX blobs_uploading ON blobs (attachment_id) WHERE state = 'uploading';
CREATE INDEX blobs_left ON blobs (touched_at) WHERE state = 'uploading';
CREATE INDEX blobs_doomed ON blobs (touched_at) WHERE state = 'doomed';

-- Who may read an attachment besides its owner: everybody who was in the chat at this version of it.
CREATE TABLE grants (
    attachment_id uuid NOT NULL REFERENCES attachments ON DELETE CASCADE,
    chat_id uuid NOT NULL,
    version bigint NOT NULL,
    granted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (attachment_id, chat_id, version),
    -- The outbox knows who was in it; its row stays as long as a grant names it.
    FOREIGN KEY (chat_id, version) REFERENCES outbox (chat_id, version)
);

CREATE INDEX grants_of_version ON grants (chat_id, version);

-- Which store has this database's blobs. One row, written once: a worker with another store would remove nothing of
-- its own, and forget everything of ours.
CREATE TABLE blob_store (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    store_id uuid NOT NULL
);
