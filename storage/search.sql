-- The search: both rankings, fused, for one audience, in one statement.
--
-- Parameters: the query's terms and what their kind counts; its embedding; whose statistics count, and
-- what may be read. Names in braces are numbers from the settings, put in once.
--
-- A branch that does not apply costs nothing: its condition is known before it starts.

WITH size AS MATERIALIZED (
    SELECT coalesce(sum(chunks), 0)::float8 AS chunks,
           coalesce(sum(chunks) FILTER (WHERE scope_id = ANY(%(scopes)s)), 0) AS visible
    FROM scope_sizes WHERE workspace_id = %(workspace_id)s
), query AS MATERIALIZED (
    SELECT q.term, f.chunks AS frequency,
           (q.weight * ln(1 + (size.chunks + {prior_chunks} - coalesce(f.chunks, 0) + 0.5)
                              / (coalesce(f.chunks, 0) + 0.5)))::float4 AS weight
    FROM size, unnest(%(terms)s::int[], %(weights)s::float4[]) AS q(term, weight)
    LEFT JOIN term_frequencies f ON f.workspace_id = %(workspace_id)s AND f.term = q.term
), lexical AS MATERIALIZED (
    SELECT ('{{' || coalesce(string_agg(term || ':' || weight, ',')
                             FILTER (WHERE frequency > 0 AND weight > 0), '')
            || '}}/{term_space}')::sparsevec AS query,
           greatest(sum(weight), 1e-6)::float8 AS best
    FROM query
), rare AS MATERIALIZED (
    -- The rarest terms whose chunks fit the budget together, and the rarest one in any case.
    SELECT array_agg(term) AS terms
    FROM (SELECT term, sum(frequency) OVER (ORDER BY frequency, term) AS chunks,
                 row_number() OVER (ORDER BY frequency, term) AS place
          FROM query WHERE frequency > 0) ordered
    WHERE chunks <= {lexical_budget} OR place = 1
), narrow AS (
    -- Few readable chunks: all of them, exactly. The limits tell the planner how few.
    SELECT v.chunk_id, v.document_id, v.version, v.cosine, t.bm25
    FROM (SELECT chunk_id, document_id, version,
                 1 - (embedding <=> %(vector)s::vector) AS cosine
          FROM chunk_vectors JOIN documents d ON d.id = document_id AND d.visible = version
          WHERE (SELECT visible FROM size) <= {exact_below}
            AND chunk_vectors.scope_id = ANY(%(scopes)s)
          LIMIT {exact_below}) v
    JOIN (SELECT chunk_id, -(bm25 <#> (SELECT query FROM lexical)) AS bm25
          FROM chunk_terms JOIN documents d ON d.id = document_id AND d.visible = version
          WHERE (SELECT visible FROM size) <= {exact_below}
            AND chunk_terms.scope_id = ANY(%(scopes)s)
          LIMIT {exact_below}) t ON t.chunk_id = v.chunk_id
), near AS MATERIALIZED (
    (SELECT v.chunk_id
     FROM chunk_vectors v JOIN documents d ON d.id = v.document_id AND d.visible = v.version
     WHERE (SELECT visible FROM size) > {exact_vectors_below}
       -- The addition hides the scopes' own index: here only the vector index is fast.
       AND (v.scope_id = ANY(%(scopes)s)) IS NOT FALSE
     ORDER BY v.embedding <=> %(vector)s::vector
     LIMIT {candidates})
    UNION ALL
    -- A middling share: the vector index would walk past ten strangers for each readable chunk.
    (SELECT chunk_id
     FROM (SELECT chunk_id, embedding <=> %(vector)s::vector AS distance
           FROM chunk_vectors JOIN documents d ON d.id = document_id AND d.visible = version
           WHERE (SELECT visible FROM size) > {exact_below}
             AND (SELECT visible FROM size) <= {exact_vectors_below}
             AND chunk_vectors.scope_id = ANY(%(scopes)s)
           LIMIT {exact_vectors_below}) v
     ORDER BY distance
     LIMIT {candidates})
), matching AS MATERIALIZED (
    SELECT t.chunk_id
    FROM (SELECT chunk_id, document_id, version, bm25 FROM chunk_terms
          WHERE (SELECT visible FROM size) > {exact_below}
            AND terms && (SELECT terms FROM rare)
            AND (scope_id = ANY(%(scopes)s)) IS NOT FALSE
          LIMIT 2 * {lexical_budget}) t
    JOIN documents d ON d.id = t.document_id AND d.visible = t.version
    ORDER BY t.bm25 <#> (SELECT query FROM lexical)
    LIMIT {candidates}
), wide AS (
    SELECT v.chunk_id, v.document_id, v.version,
           1 - (v.embedding <=> %(vector)s::vector) AS cosine,
           -(t.bm25 <#> (SELECT query FROM lexical)) AS bm25
    FROM (SELECT chunk_id FROM near UNION SELECT chunk_id FROM matching) c
    JOIN chunk_vectors v ON v.chunk_id = c.chunk_id
    JOIN chunk_terms t ON t.chunk_id = c.chunk_id
), best AS (
    SELECT s.chunk_id, s.document_id, d.name, s.cosine, s.bm25,
           s.bm25 / (SELECT best FROM lexical) AS coverage
    FROM (SELECT * FROM narrow UNION ALL SELECT * FROM wide) s
    JOIN documents d ON d.id = s.document_id AND d.visible = s.version
    ORDER BY {cosine_weight} * s.cosine
           + {coverage_weight} * s.bm25 / (SELECT best FROM lexical) DESC
    LIMIT %(limit)s
)
SELECT b.chunk_id, b.document_id, b.name, c.page, c.heading, c."offset", c.ordinal, c.text,
       b.cosine, b.bm25, b.coverage
FROM best b JOIN chunks c ON c.id = b.chunk_id
ORDER BY {cosine_weight} * b.cosine + {coverage_weight} * b.coverage DESC
