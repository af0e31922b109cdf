"""Import and export of LLMRouter's files (llmrouter-lib 0.4).

routing JSONL   one line a (query, model): task_name, query, ground_truth, metric, choices,
                model_name, response, performance, embedding_id, token_num, input_tokens,
                output_tokens, response_time, user_id, fig_id
LLM JSON        name -> size, feature, input_price, output_price, model, service, api_endpoint
embeddings      a .pt file: a tensor, or a dict embedding_id -> tensor
router config   YAML: data_path, model_path, metric, hparam
"""
