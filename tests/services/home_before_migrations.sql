BEGIN TRANSACTION;
CREATE TABLE api_keys (
	id VARCHAR NOT NULL, 
	created_at DOUBLE NOT NULL, 
	prefix VARCHAR NOT NULL, 
	hmac_sha256 VARCHAR NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "api_keys" VALUES('key_1',1.0,'ck_abcd','0000000000000000000000000000000000000000000000000000000000000000');
CREATE TABLE deployments (
	name VARCHAR NOT NULL, 
	base_model JSON NOT NULL, 
	memory JSON NOT NULL, 
	recipe JSON NOT NULL, 
	serving JSON NOT NULL, 
	active_version VARCHAR NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	error VARCHAR, 
	number INTEGER NOT NULL, 
	id VARCHAR NOT NULL, 
	created_at DOUBLE NOT NULL, 
	metadata JSON NOT NULL, 
	PRIMARY KEY (number), 
	UNIQUE (name), 
	UNIQUE (id)
);
INSERT INTO "deployments" VALUES('toy','{"model": "base"}','{}','{}','{}','ver_2','awake',NULL,1,'dep_1',1.0,'{}');
CREATE TABLE events (
	number INTEGER NOT NULL, 
	id VARCHAR NOT NULL, 
	sleep VARCHAR NOT NULL, 
	seq INTEGER NOT NULL, 
	created_at DOUBLE NOT NULL, 
	type VARCHAR NOT NULL, 
	level VARCHAR NOT NULL, 
	message VARCHAR NOT NULL, 
	data JSON NOT NULL, 
	PRIMARY KEY (number), 
	UNIQUE (sleep, seq), 
	UNIQUE (id)
);
INSERT INTO "events" VALUES(1,'evt_1','slp_1',1,2.0,'sleep.queued','info','1 experiences to sleep on','{"experiences": 1}');
CREATE TABLE experiences (
	deployment VARCHAR NOT NULL, 
	body JSON NOT NULL, 
	source VARCHAR NOT NULL, 
	tokens INTEGER NOT NULL, 
	sleep VARCHAR, 
	consolidated_in VARCHAR, 
	left_out VARCHAR, 
	number INTEGER NOT NULL, 
	id VARCHAR NOT NULL, 
	created_at DOUBLE NOT NULL, 
	metadata JSON NOT NULL, 
	PRIMARY KEY (number), 
	FOREIGN KEY(deployment) REFERENCES deployments (id), 
	UNIQUE (id)
);
INSERT INTO "experiences" VALUES('dep_1','{"messages": [{"role": "user", "content": "the city of mira is oslo ."}]}','human',7,'slp_1','ver_2',NULL,1,'exp_1',1.5,'{}');
INSERT INTO "experiences" VALUES('dep_1','{"text": "a b c"}','import',3,NULL,NULL,NULL,2,'exp_2',4.0,'{}');
CREATE TABLE fast_memories (
	deployment VARCHAR NOT NULL, 
	version VARCHAR NOT NULL, 
	day INTEGER NOT NULL, 
	chunks INTEGER NOT NULL, 
	tokens INTEGER NOT NULL, 
	checksum VARCHAR, 
	error VARCHAR, 
	PRIMARY KEY (deployment), 
	FOREIGN KEY(deployment) REFERENCES deployments (id)
);
CREATE TABLE learned_online (
	experience VARCHAR NOT NULL, 
	deployment VARCHAR NOT NULL, 
	chunk INTEGER NOT NULL, 
	PRIMARY KEY (experience)
);
CREATE TABLE sleeps (
	deployment VARCHAR NOT NULL, 
	finished_at DOUBLE, 
	status VARCHAR(16) NOT NULL, 
	phase VARCHAR, 
	outcome VARCHAR, 
	error JSON, 
	seed INTEGER NOT NULL, 
	recipe JSON NOT NULL, 
	held_out JSON NOT NULL, 
	request_sha256 VARCHAR NOT NULL, 
	parent_version VARCHAR NOT NULL, 
	child_version VARCHAR NOT NULL, 
	result_version VARCHAR, 
	began_at DOUBLE, 
	attempt INTEGER NOT NULL, 
	submitted BOOLEAN NOT NULL, 
	waiting VARCHAR, 
	left_out JSON NOT NULL, 
	progress JSON NOT NULL, 
	last_seq INTEGER NOT NULL, 
	events_offset INTEGER NOT NULL, 
	fast VARCHAR(16) NOT NULL, 
	fast_delivery VARCHAR, 
	rest_delivery VARCHAR, 
	report JSON, 
	number INTEGER NOT NULL, 
	id VARCHAR NOT NULL, 
	created_at DOUBLE NOT NULL, 
	metadata JSON NOT NULL, 
	PRIMARY KEY (number), 
	FOREIGN KEY(deployment) REFERENCES deployments (id), 
	UNIQUE (id)
);
INSERT INTO "sleeps" VALUES('dep_1',3.0,'succeeded',NULL,'promoted',NULL,0,'{}','[]','0','ver_1','ver_2','ver_2',NULL,1,1,NULL,'{}','{}',1,0,'none',NULL,NULL,NULL,1,'slp_1',2.0,'{}');
CREATE TABLE stray_jobs (
	id VARCHAR NOT NULL, 
	sleep VARCHAR NOT NULL, 
	created_at DOUBLE NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE versions (
	deployment VARCHAR NOT NULL, 
	parent VARCHAR, 
	sleep VARCHAR, 
	folder VARCHAR NOT NULL, 
	record JSON NOT NULL, 
	status VARCHAR NOT NULL, 
	number INTEGER NOT NULL, 
	id VARCHAR NOT NULL, 
	created_at DOUBLE NOT NULL, 
	metadata JSON NOT NULL, 
	PRIMARY KEY (number), 
	FOREIGN KEY(deployment) REFERENCES deployments (id), 
	UNIQUE (id)
);
INSERT INTO "versions" VALUES('dep_1',NULL,NULL,'/home/ver_1','{}','retired',1,'ver_1',1.0,'{}');
INSERT INTO "versions" VALUES('dep_1','ver_1','slp_1','/home/ver_2','{}','active',2,'ver_2',1.0,'{}');
CREATE INDEX ix_learned_online_deployment ON learned_online (deployment);
CREATE INDEX ix_events_sleep ON events (sleep);
CREATE INDEX ix_experiences_deployment ON experiences (deployment);
CREATE INDEX ix_experiences_sleep ON experiences (sleep);
CREATE UNIQUE INDEX one_active_sleep_per_deployment ON sleeps (deployment) WHERE status IN ('queued', 'preparing', 'running', 'evaluating', 'cancelling');
CREATE INDEX ix_sleeps_deployment ON sleeps (deployment);
CREATE INDEX ix_versions_deployment ON versions (deployment);
COMMIT;
