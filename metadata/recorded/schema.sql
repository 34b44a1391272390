CREATE TABLE public._sqlx_migrations (
    version bigint NOT NULL,
    description text NOT NULL,
    installed_on timestamp with time zone DEFAULT now() NOT NULL,
    success boolean NOT NULL,
    checksum bytea NOT NULL,
    execution_time bigint NOT NULL
);
CREATE TABLE public.attachments (
    attachment_id uuid NOT NULL,
    owner text NOT NULL COLLATE pg_catalog."C",
    hash bytea NOT NULL,
    size bigint NOT NULL,
    content_type text NOT NULL,
    name text,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    gone_at timestamp with time zone,
    uploads smallint DEFAULT 0 NOT NULL,
    CONSTRAINT attachments_hash_check CHECK ((octet_length(hash) = 32)),
    CONSTRAINT attachments_owner_check CHECK ((owner ~ '^[ -~]{1,128}$'::text)),
    CONSTRAINT attachments_size_check CHECK ((size >= 0))
);
CREATE TABLE public.blob_store (
    one boolean DEFAULT true NOT NULL,
    store_id uuid NOT NULL,
    CONSTRAINT blob_store_one_check CHECK (one)
);
CREATE TABLE public.blobs (
    blob_id uuid NOT NULL,
    owner text NOT NULL COLLATE pg_catalog."C",
    hash bytea NOT NULL,
    size bigint NOT NULL,
    state text NOT NULL,
    attachment_id uuid,
    fence uuid NOT NULL,
    received bigint DEFAULT 0 NOT NULL,
    checkpoint jsonb,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    touched_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT blobs_check CHECK (((state = 'uploading'::text) <= (attachment_id IS NOT NULL))),
    CONSTRAINT blobs_hash_check CHECK ((octet_length(hash) = 32)),
    CONSTRAINT blobs_size_check CHECK ((size >= 0)),
    CONSTRAINT blobs_state_check CHECK ((state = ANY (ARRAY['uploading'::text, 'stored'::text, 'doomed'::text])))
);
CREATE TABLE public.chats (
    chat_id uuid NOT NULL,
    kind text NOT NULL,
    name text,
    version bigint NOT NULL,
    direct_low text COLLATE pg_catalog."C",
    direct_high text COLLATE pg_catalog."C",
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    closed_at timestamp with time zone,
    CONSTRAINT chats_check CHECK ((direct_low < direct_high)),
    CONSTRAINT chats_check1 CHECK (((kind = 'direct'::text) = (direct_low IS NOT NULL))),
    CONSTRAINT chats_check2 CHECK (((kind = 'direct'::text) = (direct_high IS NOT NULL))),
    CONSTRAINT chats_check3 CHECK (((kind = 'group'::text) OR ((name IS NULL) AND (closed_at IS NULL)))),
    CONSTRAINT chats_kind_check CHECK ((kind = ANY (ARRAY['direct'::text, 'group'::text]))),
    CONSTRAINT chats_name_check CHECK (((char_length(name) >= 1) AND (char_length(name) <= 100)))
);
CREATE TABLE public.clients (
    client_id uuid NOT NULL,
    user_id text NOT NULL COLLATE pg_catalog."C",
    state text NOT NULL,
    name text,
    heir boolean NOT NULL,
    registered_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    last_seen_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    away_since timestamp with time zone,
    inherited_up_to bigint,
    sweeps smallint DEFAULT 0 NOT NULL,
    swept_at timestamp with time zone,
    CONSTRAINT clients_name_check CHECK (((char_length(name) >= 1) AND (char_length(name) <= 100))),
    CONSTRAINT clients_state_check CHECK ((state = ANY (ARRAY['active'::text, 'idle'::text, 'removed'::text])))
);
CREATE TABLE public.grants (
    attachment_id uuid NOT NULL,
    chat_id uuid NOT NULL,
    version bigint NOT NULL,
    granted_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
CREATE TABLE public.leases (
    name text NOT NULL,
    holder uuid NOT NULL,
    expires_at timestamp with time zone NOT NULL
);
CREATE TABLE public.outbox (
    outbox_id bigint NOT NULL,
    chat_id uuid,
    user_id text COLLATE pg_catalog."C",
    version bigint NOT NULL,
    change jsonb,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    seq bigint,
    sent_at timestamp with time zone,
    superseded_at timestamp with time zone,
    CONSTRAINT outbox_check CHECK ((num_nonnulls(chat_id, user_id) = 1)),
    CONSTRAINT outbox_check1 CHECK (((chat_id IS NULL) = (change IS NULL))),
    CONSTRAINT outbox_check2 CHECK (((seq IS NULL) = (sent_at IS NULL)))
);
ALTER TABLE public.outbox ALTER COLUMN outbox_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.outbox_outbox_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.participants (
    chat_id uuid NOT NULL,
    user_id text NOT NULL COLLATE pg_catalog."C",
    role text NOT NULL,
    standing bigint NOT NULL,
    added_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT participants_role_check CHECK ((role = ANY (ARRAY['admin'::text, 'member'::text]))),
    CONSTRAINT participants_user_id_check CHECK ((user_id ~ '^[ -~]{1,128}$'::text))
);
CREATE TABLE public.requests (
    user_id text NOT NULL COLLATE pg_catalog."C",
    request_id uuid NOT NULL,
    fingerprint bigint NOT NULL,
    requested_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    chat_id uuid,
    version bigint,
    done boolean
);
CREATE TABLE public.users (
    user_id text NOT NULL COLLATE pg_catalog."C",
    version bigint DEFAULT 0 NOT NULL,
    suspended_at timestamp with time zone,
    registered_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT users_user_id_check CHECK ((user_id ~ '^[ -~]{1,128}$'::text))
);
ALTER TABLE ONLY public._sqlx_migrations
    ADD CONSTRAINT _sqlx_migrations_pkey PRIMARY KEY (version);
ALTER TABLE ONLY public.attachments
    ADD CONSTRAINT attachments_pkey PRIMARY KEY (attachment_id);
ALTER TABLE ONLY public.blob_store
    ADD CONSTRAINT blob_store_pkey PRIMARY KEY (one);
ALTER TABLE ONLY public.blobs
    ADD CONSTRAINT blobs_pkey PRIMARY KEY (blob_id);
ALTER TABLE ONLY public.chats
    ADD CONSTRAINT chats_direct_low_direct_high_key UNIQUE (direct_low, direct_high);
ALTER TABLE ONLY public.chats
    ADD CONSTRAINT chats_pkey PRIMARY KEY (chat_id);
ALTER TABLE ONLY public.clients
    ADD CONSTRAINT clients_pkey PRIMARY KEY (client_id);
ALTER TABLE ONLY public.grants
    ADD CONSTRAINT grants_pkey PRIMARY KEY (attachment_id, chat_id, version);
ALTER TABLE ONLY public.leases
    ADD CONSTRAINT leases_pkey PRIMARY KEY (name);
ALTER TABLE ONLY public.outbox
    ADD CONSTRAINT outbox_chat_id_version_key UNIQUE (chat_id, version);
ALTER TABLE ONLY public.outbox
    ADD CONSTRAINT outbox_pkey PRIMARY KEY (outbox_id);
ALTER TABLE ONLY public.outbox
    ADD CONSTRAINT outbox_user_id_version_key UNIQUE (user_id, version);
ALTER TABLE ONLY public.participants
    ADD CONSTRAINT participants_chat_id_standing_key UNIQUE (chat_id, standing);
ALTER TABLE ONLY public.participants
    ADD CONSTRAINT participants_pkey PRIMARY KEY (chat_id, user_id);
ALTER TABLE ONLY public.requests
    ADD CONSTRAINT requests_pkey PRIMARY KEY (user_id, request_id);
ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_pkey PRIMARY KEY (user_id);
CREATE INDEX attachments_expiring ON public.attachments USING btree (expires_at) WHERE (gone_at IS NULL);
CREATE INDEX attachments_gone ON public.attachments USING btree (gone_at) WHERE (gone_at IS NOT NULL);
CREATE INDEX attachments_of_content ON public.attachments USING btree (owner, hash, size) WHERE (gone_at IS NULL);
CREATE INDEX attachments_of_owner ON public.attachments USING btree (owner, created_at);
CREATE INDEX blobs_doomed ON public.blobs USING btree (touched_at) WHERE (state = 'doomed'::text);
CREATE INDEX blobs_left ON public.blobs USING btree (touched_at) WHERE (state = 'uploading'::text);
CREATE UNIQUE INDEX blobs_stored ON public.blobs USING btree (owner, hash, size) WHERE (state = 'stored'::text);
CREATE UNIQUE INDEX blobs_uploading ON public.blobs USING btree (attachment_id) WHERE (state = 'uploading'::text);
CREATE INDEX clients_active_of_user ON public.clients USING btree (user_id) WHERE (state = 'active'::text);
CREATE INDEX clients_active_unseen ON public.clients USING btree (last_seen_at) WHERE (state = 'active'::text);
CREATE UNIQUE INDEX clients_one_heir ON public.clients USING btree (user_id) WHERE ((state = 'active'::text) AND heir);
CREATE INDEX clients_to_sweep ON public.clients USING btree (swept_at) WHERE ((state <> 'active'::text) AND (sweeps < 3));
CREATE INDEX grants_of_version ON public.grants USING btree (chat_id, version);
CREATE INDEX outbox_chat_seq ON public.outbox USING btree (chat_id, seq) WHERE (chat_id IS NOT NULL);
CREATE INDEX outbox_superseded ON public.outbox USING btree (superseded_at) WHERE (superseded_at IS NOT NULL);
CREATE INDEX outbox_unsent ON public.outbox USING btree (created_at) WHERE (seq IS NULL);
CREATE INDEX participants_by_user ON public.participants USING btree (user_id, chat_id);
CREATE INDEX requests_by_age ON public.requests USING btree (requested_at);
ALTER TABLE ONLY public.clients
    ADD CONSTRAINT clients_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(user_id);
ALTER TABLE ONLY public.grants
    ADD CONSTRAINT grants_attachment_id_fkey FOREIGN KEY (attachment_id) REFERENCES public.attachments(attachment_id) ON DELETE CASCADE;
ALTER TABLE ONLY public.grants
    ADD CONSTRAINT grants_chat_id_version_fkey FOREIGN KEY (chat_id, version) REFERENCES public.outbox(chat_id, version);
ALTER TABLE ONLY public.outbox
    ADD CONSTRAINT outbox_chat_id_fkey FOREIGN KEY (chat_id) REFERENCES public.chats(chat_id);
ALTER TABLE ONLY public.outbox
    ADD CONSTRAINT outbox_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(user_id);
ALTER TABLE ONLY public.participants
    ADD CONSTRAINT participants_chat_id_fkey FOREIGN KEY (chat_id) REFERENCES public.chats(chat_id);
INSERT INTO public._sqlx_migrations (version, description, success, checksum, execution_time) VALUES (1, 'users and clients', true, E'\\xe57c4ea06e16c0aad901ec540d3b24b9fee821174d4b892de73c94b52926398e849839c8c06c0320b6064c33cb2495e7', 0);
INSERT INTO public._sqlx_migrations (version, description, success, checksum, execution_time) VALUES (2, 'chats', true, E'\\x69810aa3fcad0b272ba950784fe7a1b979133247d0c8028333badf7e3f822a7d4640fe8c8dc128123a97c6a50ed529b7', 0);
INSERT INTO public._sqlx_migrations (version, description, success, checksum, execution_time) VALUES (3, 'outbox', true, E'\\x589a63301b21a5e6d69f365a16070c7130692e0853b90bae16be7eb45448e971cba7e63e17a4a7e4e9990b0d0254c2c0', 0);
INSERT INTO public._sqlx_migrations (version, description, success, checksum, execution_time) VALUES (4, 'inbox life', true, E'\\x8db4797bdd266c350d64cac4d5950106fa8bea16d1f429fd860f285ce140f300aefc2027d057f1036f2669ac290eaf7b', 0);
INSERT INTO public._sqlx_migrations (version, description, success, checksum, execution_time) VALUES (5, 'attachments', true, E'\\x6b5fae7743e4049c6d58a5b9ec2028000b4fed2d2ad5baa81af31cd3ee16cdea046aa9aa8ab56852e72e116eecfb0173', 0);
